/* Opens a sealed model and says what it is: open MODEL GRANT IDENTITY
 *
 *   cargo build --release -p modelseal-capi
 *   cc -Ihost/capi/include host/capi/examples/open.c target/release/libmodelseal_c.a -lm -o open
 */
#include <modelseal.h>
#include <stdio.h>

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: %s MODEL GRANT IDENTITY\n", argv[0]);
    return MODELSEAL_USAGE;
  }
  modelseal_options options = {.size = sizeof options, .path = argv[1], .grant = argv[2], .identity = argv[3]};
  modelseal_model *model;
  modelseal_error *error;
  int code = modelseal_open(&options, &model, &error);
  if (code != MODELSEAL_OK) {
    fprintf(stderr, "error: %s\n  hint: %s\n", modelseal_error_message(error), modelseal_error_hint(error));
    modelseal_error_free(error);
    return code;
  }
  /* The whole model, checked, until it is freed: what a runtime that loads from memory takes. */
  const unsigned char *bytes = modelseal_data(model);
  printf("%s version %llu (%s): %llu bytes, the first is %02x\n", modelseal_line(model),
         (unsigned long long)modelseal_version(model), modelseal_kind(model),
         (unsigned long long)modelseal_length(model), bytes[0]);
  modelseal_model_free(model);
  return MODELSEAL_OK;
}
