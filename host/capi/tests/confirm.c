/* When the floor is stored, and how much stack it takes: confirm STACK MODEL FILE GRANT IDENTITY
 *
 * Opens MODEL lazily, or FILE of the folder MODEL if FILE isn't "-", reads all of it and waits for a line before it confirms.
 * Ends with the first code that isn't 0. */
#include <modelseal.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int done(int code, modelseal_error *error) {
  if (code != MODELSEAL_OK) fprintf(stderr, "%s\n", modelseal_error_message(error));
  modelseal_error_free(error);
  return code;
}

static void *work(void *arguments) {
  char **argv = arguments;
  modelseal_options options = {.size = sizeof options, .path = argv[2], .grant = argv[4], .identity = argv[5]};
  if (strcmp(argv[3], "-") != 0) options.file = argv[3];
  options.lazy = 1;
  modelseal_model *model;
  modelseal_error *error = NULL;
  int code = done(modelseal_open(&options, &model, &error), error);
  if (code != 0) return (void *)(size_t)code;
  size_t length = (size_t)modelseal_length(model);
  void *bytes = malloc(length);
  error = NULL;
  code = done(modelseal_read_at(model, 0, bytes, length, &error), error);
  puts("read");
  fflush(stdout);
  if (code == 0 && getchar() == 'y') {
    error = NULL;
    code = done(modelseal_confirm(model, &error), error);
    if (code == 0) code = modelseal_confirm(model, NULL);
  }
  free(bytes);
  modelseal_model_free(model);
  return (void *)(size_t)code;
}

int main(int argc, char **argv) {
  if (argc != 6) return 99;
  pthread_attr_t attributes;
  pthread_t thread;
  void *code;
  if (pthread_attr_init(&attributes) != 0) return 98;
  if (pthread_attr_setstacksize(&attributes, (size_t)atol(argv[1]) << 10) != 0) return 97;
  if (pthread_create(&thread, &attributes, work, argv) != 0) return 96;
  if (pthread_join(thread, &code) != 0) return 95;
  return (int)(size_t)code;
}
