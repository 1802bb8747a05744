/* Everything that the header promises, under sanitizers: threads MODEL CHANGED GRANT IDENTITY PLAINTEXT FOLDER GRANTS
 *
 * FOLDER is a sealed folder with the model in deep/model and an empty file in empty. */
#include <modelseal.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 8

#define REQUIRE(condition)                                                      \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);           \
      abort();                                                                  \
    }                                                                           \
  } while (0)

static const char *model_path, *changed_path, *grant_path, *identity_path;
static unsigned char *plaintext;
static size_t plaintext_length;
static modelseal_model *whole, *lazy;

static modelseal_options options(const char *path) {
  modelseal_options options = {.size = sizeof options, .path = path, .grant = grant_path, .identity = identity_path};
  return options;
}

static modelseal_model *opened(modelseal_options options) {
  modelseal_model *model = NULL;
  modelseal_error *error = NULL;
  int code = modelseal_open(&options, &model, &error);
  if (code != MODELSEAL_OK) fprintf(stderr, "%s\n", modelseal_error_message(error));
  REQUIRE(code == MODELSEAL_OK && model != NULL && error == NULL);
  return model;
}

static void refused(modelseal_options options, int expected, const char *name) {
  modelseal_model *model = (modelseal_model *)&options;
  modelseal_error *error;
  REQUIRE(modelseal_open(&options, &model, &error) == expected);
  REQUIRE(model == NULL && modelseal_error_code(error) == expected);
  REQUIRE(strlen(modelseal_error_message(error)) > 0 && strlen(modelseal_error_hint(error)) > 0);
  const char *told = modelseal_error_name(error);
  REQUIRE(name == NULL ? told == NULL : told != NULL && strcmp(told, name) == 0);
  modelseal_error_free(error);
  /* Who doesn't want to know more gets the code. */
  REQUIRE(modelseal_open(&options, &model, NULL) == expected && model == NULL);
}

static void same(const modelseal_model *model, unsigned seed) {
  unsigned char part[70000];
  for (int i = 0; i < 20; i++) {
    size_t offset = rand_r(&seed) % (plaintext_length + 1);
    size_t length = rand_r(&seed) % sizeof part;
    modelseal_error *error = NULL;
    int code = modelseal_read_at(model, offset, part, length, &error);
    if (length > plaintext_length - offset) {
      REQUIRE(code == MODELSEAL_USAGE && error != NULL);
      modelseal_error_free(error);
    } else {
      REQUIRE(code == MODELSEAL_OK && error == NULL && memcmp(part, plaintext + offset, length) == 0);
    }
  }
}

static void *work(void *number) {
  unsigned seed = (unsigned)(size_t)number;
  same(whole, seed);
  same(lazy, seed + 100);
  modelseal_options mine = options(model_path);
  mine.lazy = seed % 2;
  modelseal_model *own = opened(mine);
  same(own, seed + 200);
  modelseal_model_free(own);
  refused(options(changed_path), MODELSEAL_NOT_AUTHENTIC, "Chunk");
  return NULL;
}

static void nulls(void) {
  modelseal_options some = options(model_path);
  modelseal_model *model;
  modelseal_error *error;
  unsigned char byte;
  REQUIRE(modelseal_open(NULL, &model, &error) == MODELSEAL_USAGE && model == NULL);
  modelseal_error_free(error);
  REQUIRE(modelseal_open(&some, NULL, &error) == MODELSEAL_USAGE);
  modelseal_error_free(error);
  REQUIRE(modelseal_open(NULL, NULL, NULL) == MODELSEAL_USAGE);
  REQUIRE(modelseal_data(NULL) == NULL && modelseal_length(NULL) == 0 && modelseal_version(NULL) == 0);
  REQUIRE(modelseal_line(NULL) == NULL && modelseal_kind(NULL) == NULL && modelseal_id(NULL) == NULL);
  REQUIRE(modelseal_created(NULL) == 0 && modelseal_claim(NULL, NULL) == NULL);
  REQUIRE(modelseal_claim(whole, NULL) == NULL && modelseal_claim(NULL, "licence") == NULL);
  REQUIRE(modelseal_read_at(NULL, 0, &byte, 1, NULL) == MODELSEAL_USAGE);
  REQUIRE(modelseal_read_at(whole, 0, NULL, 1, NULL) == MODELSEAL_USAGE);
  REQUIRE(modelseal_read_at(whole, 0, NULL, 0, NULL) == MODELSEAL_OK);
  REQUIRE(modelseal_read_at(whole, UINT64_MAX, &byte, 1, NULL) == MODELSEAL_USAGE);
  REQUIRE(modelseal_read_at(whole, 0, &byte, SIZE_MAX, NULL) == MODELSEAL_USAGE);
  REQUIRE(modelseal_error_code(NULL) == MODELSEAL_OK && modelseal_error_message(NULL) == NULL);
  REQUIRE(modelseal_error_hint(NULL) == NULL && modelseal_error_name(NULL) == NULL);
  modelseal_error_free(NULL);
  modelseal_model_free(NULL);
}

static void wrong_options(void) {
  modelseal_options wrong = options(NULL);
  refused(wrong, MODELSEAL_USAGE, NULL);
  wrong = options(model_path), wrong.size = 8;
  refused(wrong, MODELSEAL_USAGE, NULL);
  wrong = options(model_path), wrong.identity = NULL;
  refused(wrong, MODELSEAL_USAGE, NULL);
  wrong = options(model_path), wrong.vault = "file:vault.json";
  refused(wrong, MODELSEAL_USAGE, NULL);
  wrong = options(model_path), wrong.line = "\xff";
  refused(wrong, MODELSEAL_USAGE, NULL);
  wrong = options(model_path), wrong.line = "another";
  refused(wrong, MODELSEAL_REFUSED, "OtherLine");
  /* Standard input, which stays as it is. */
  wrong = options("-");
  refused(wrong, MODELSEAL_USAGE, NULL);
  wrong.file = "deep/model";
  refused(wrong, MODELSEAL_USAGE, NULL);
  wrong = options("./-");
  refused(wrong, MODELSEAL_IO, NULL);
  wrong = options("/no/such/model");
  refused(wrong, MODELSEAL_IO, NULL);
  wrong = options(identity_path);
  refused(wrong, MODELSEAL_UNSUPPORTED, "ForeignMagic");
  wrong = options(model_path), wrong.grant = wrong.identity = NULL, wrong.vault = "file:vault.json";
  refused(wrong, MODELSEAL_VAULT, NULL);
  wrong.passphrase = "not the passphrase";
  refused(wrong, MODELSEAL_VAULT, NULL);
}

/* What comes behind the options that this header knows, in a program that is newer. */
struct newer {
  modelseal_options options;
  uint64_t more;
};

static void sizes(void) {
  size_t wrong[] = {0, 1, sizeof(size_t), sizeof(modelseal_options) - 1, 5000, SIZE_MAX};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    /* Exactly so many bytes can be read. */
    size_t length = wrong[i] < sizeof(size_t) || wrong[i] > 5000 ? sizeof(size_t) : wrong[i];
    size_t *cut = calloc(1, length);
    *cut = wrong[i];
    modelseal_model *model;
    REQUIRE(modelseal_open((const modelseal_options *)cut, &model, NULL) == MODELSEAL_USAGE && model == NULL);
    free(cut);
  }
  struct newer newer = {.options = options(model_path), .more = 0};
  newer.options.size = sizeof newer;
  modelseal_model *model;
  REQUIRE(modelseal_open(&newer.options, &model, NULL) == MODELSEAL_OK);
  same(model, 3);
  modelseal_model_free(model);
  newer.more = 1;
  REQUIRE(modelseal_open(&newer.options, &model, NULL) == MODELSEAL_USAGE);
  /* Options needn't be aligned, and flags aren't anything. */
  unsigned char *odd = malloc(sizeof(modelseal_options) + 1);
  modelseal_options some = options(model_path);
  memcpy(odd + 1, &some, sizeof some);
  REQUIRE(modelseal_open((const modelseal_options *)(void *)(odd + 1), &model, NULL) == MODELSEAL_OK);
  modelseal_model_free(model);
  free(odd);
  some.lazy = 2;
  refused(some, MODELSEAL_USAGE, NULL);
  some = options(model_path), some.no_confirm = 255;
  refused(some, MODELSEAL_USAGE, NULL);
}

static void by_vault(void) {
  modelseal_options vault = {.size = sizeof vault, .path = model_path, .vault = "file:vault.json"};
  vault.passphrase_file = "passphrase";
  modelseal_model *model = opened(vault);
  same(model, 1);
  modelseal_model_free(model);
}

static void of_a_folder(const char *folder, const char *grants) {
  modelseal_options one = options(folder);
  one.file = "deep/model", one.grant = grants, one.no_confirm = 1;
  for (int i = 0; i < 2; i++) {
    one.lazy = i;
    modelseal_model *model = opened(one);
    same(model, 2);
    modelseal_model_free(model);
  }
  one.file = "empty";
  modelseal_model *model = opened(one);
  REQUIRE(modelseal_length(model) == 0 && modelseal_data(model) == NULL);
  REQUIRE(modelseal_read_at(model, 0, &model, 0, NULL) == MODELSEAL_OK);
  REQUIRE(strcmp(modelseal_kind(model), "bytes") == 0 && strlen(modelseal_id(model)) == 0);
  REQUIRE(strcmp(modelseal_line(model), "wake-word") == 0 && modelseal_version(model) == 1);
  modelseal_model_free(model);
  one.file = "missing";
  refused(one, MODELSEAL_USAGE, NULL);
}

static void read_plaintext(const char *path) {
  FILE *file = fopen(path, "rb");
  REQUIRE(file != NULL && fseek(file, 0, SEEK_END) == 0);
  plaintext_length = (size_t)ftell(file);
  rewind(file);
  plaintext = malloc(plaintext_length);
  REQUIRE(fread(plaintext, 1, plaintext_length, file) == plaintext_length);
  fclose(file);
}

int main(int argc, char **argv) {
  REQUIRE(argc == 8);
  model_path = argv[1], changed_path = argv[2], grant_path = argv[3], identity_path = argv[4];
  read_plaintext(argv[5]);
  whole = opened(options(model_path));
  modelseal_options lazily = options(model_path);
  lazily.lazy = 1;
  lazy = opened(lazily);
  REQUIRE(modelseal_length(whole) == plaintext_length && modelseal_length(lazy) == plaintext_length);
  REQUIRE(memcmp(modelseal_data(whole), plaintext, plaintext_length) == 0 && modelseal_data(lazy) == NULL);
  REQUIRE(strcmp(modelseal_line(whole), "wake-word") == 0 && strcmp(modelseal_kind(lazy), "tflite") == 0);
  REQUIRE(modelseal_version(whole) == 1 && modelseal_created(whole) > 1700000000);
  REQUIRE(strlen(modelseal_id(whole)) == 64 && strcmp(modelseal_id(whole), modelseal_id(lazy)) == 0);
  REQUIRE(strcmp(modelseal_claim(whole, "licence"), "Apache-2.0") == 0 && modelseal_claim(whole, "other") == NULL);
  nulls();
  wrong_options();
  sizes();
  by_vault();
  of_a_folder(argv[6], argv[7]);
  pthread_t threads[THREADS];
  for (size_t i = 0; i < THREADS; i++) REQUIRE(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
  for (size_t i = 0; i < THREADS; i++) REQUIRE(pthread_join(threads[i], NULL) == 0);
  modelseal_model_free(whole);
  modelseal_model_free(lazy);
  free(plaintext);
  puts("all as promised");
  return 0;
}
