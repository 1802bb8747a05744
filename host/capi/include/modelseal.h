/* modelseal for C: opens sealed models. Made by cbindgen from host/capi/src; docs/C.md says how it is used.
 *
 * A pointer to a model, options or an error is NULL, or comes from here and wasn't freed. A string is NULL, or UTF-8 that
 * ends with a zero byte. NULL is checked for everywhere: where it isn't allowed, it is MODELSEAL_USAGE, or gives NULL or 0.
 * Strings that are returned live as long as what they were asked of.
 *
 * Every function may be called from every thread, also with one model at the same time. A model or an error is freed once,
 * when nobody uses it any more. */


#ifndef MODELSEAL_H
#define MODELSEAL_H

#include <stddef.h>
#include <stdint.h>

/**
 * What went wrong: the exit codes of the command line.
 */
typedef enum {
  /**
   * Nothing.
   */
  MODELSEAL_OK = 0,
  /**
   * Anything that isn't below.
   */
  MODELSEAL_OTHER = 1,
  /**
   * A wrong argument.
   */
  MODELSEAL_USAGE = 2,
  /**
   * Changed, cut, extended, malformed; wrong key, wrong publisher, another vault's.
   */
  MODELSEAL_NOT_AUTHENTIC = 3,
  /**
   * Refused by the terms: other line, device or model; expired, not yet valid, rolled back.
   */
  MODELSEAL_REFUSED = 4,
  /**
   * The vault: no passphrase, PIN, token, key.
   */
  MODELSEAL_VAULT = 5,
  /**
   * Input, output or memory.
   */
  MODELSEAL_IO = 6,
  /**
   * A foreign magic, an unknown version or an unknown suite.
   */
  MODELSEAL_UNSUPPORTED = 7,
} modelseal_code;

/**
 * What failed, and what to do.
 */
typedef struct modelseal_error modelseal_error;

/**
 * An opened model. It never changes, and its memory is wiped when it is freed.
 */
typedef struct modelseal_model modelseal_model;

/**
 * What is to be opened, and with whose key: `grant` and `identity`, or else `vault`. To be filled with zeros first, for
 * what is NULL or 0 isn't asked for, and `size` to be set to `sizeof(modelseal_options)`.
 */
typedef struct {
  /**
   * `sizeof(modelseal_options)`: later versions of this library know by it which fields there are.
   */
  size_t size;
  /**
   * The sealed model, or the sealed folder that `file` is in. Nothing is read from standard input: "-" is refused, and a
   * file of that name is "./-".
   */
  const char *path;
  /**
   * With a sealed folder: the file's path in it, such as "weights/1.gguf".
   */
  const char *file;
  /**
   * The device's grant; with a sealed folder, the folder of its grants.
   */
  const char *grant;
  /**
   * The device's identity.
   */
  const char *identity;
  /**
   * Where the device's floors are stored; NULL: beside the identity.
   */
  const char *state;
  /**
   * The vault: "file:PATH" or "pkcs11:…".
   */
  const char *vault;
  /**
   * The vault's passphrase or PIN; a copy is made, and wiped.
   */
  const char *passphrase;
  /**
   * Or the file that it is in.
   */
  const char *passphrase_file;
  /**
   * Any other line is refused.
   */
  const char *line;
  /**
   * Read what is asked for when it is asked for, and check it then: for models that are larger than memory.
   * 1, or 0 for the whole model.
   */
  uint8_t lazy;
  /**
   * Leave the stored floor as it is: 1, or 0.
   */
  uint8_t no_confirm;
} modelseal_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The code, as the function returned it; `MODELSEAL_OK` for NULL.
 */
int32_t modelseal_error_code(const modelseal_error *error);

/**
 * One sentence that says what failed.
 */
const char *modelseal_error_message(const modelseal_error *error);

/**
 * What to do.
 */
const char *modelseal_error_hint(const modelseal_error *error);

/**
 * The format's own name for the failure, such as "RolledBack"; NULL if it has none.
 */
const char *modelseal_error_name(const modelseal_error *error);

/**
 * Frees an error; NULL is fine.
 */
void modelseal_error_free(modelseal_error *error);

/**
 * Opens a model. On success `*model` is it, to be freed with `modelseal_model_free`; on failure `*model` is NULL, the
 * code is returned, and `*error` says more, to be freed with `modelseal_error_free`. `error` may be NULL.
 *
 * Unless `lazy` is set, every byte has been checked when this returns. With a grant, its floor has been stored then,
 * unless `no_confirm` is set. The floor of a model that is opened lazily, or of a folder of which this is one file, is
 * stored by `modelseal_confirm`.
 *
 * The calling thread needs 256 KiB of stack for this and for `modelseal_read_at`.
 */
int32_t modelseal_open(const modelseal_options *options,
                       modelseal_model **model,
                       modelseal_error **error);

/**
 * The whole model, `modelseal_length` bytes, until it is freed; NULL if it was opened lazily or is empty. Nobody may
 * write there.
 */
const void *modelseal_data(const modelseal_model *model);

/**
 * The model's length in bytes.
 */
uint64_t modelseal_length(const modelseal_model *model);

/**
 * Copies `length` bytes of the model, from `offset` on, into `out`, and returns the code; on failure `out` may have been
 * overwritten, with nothing that didn't pass. `error` may be NULL.
 */
int32_t modelseal_read_at(const modelseal_model *model,
                          uint64_t offset,
                          void *out,
                          size_t length,
                          modelseal_error **error);

/**
 * The model's line.
 */
const char *modelseal_line(const modelseal_model *model);

/**
 * The model's version.
 */
uint64_t modelseal_version(const modelseal_model *model);

/**
 * What the model is, such as "onnx".
 */
const char *modelseal_kind(const modelseal_model *model);

/**
 * When it was sealed, in seconds since 1970-01-01 UTC.
 */
uint64_t modelseal_created(const modelseal_model *model);

/**
 * The model's id, in hexadecimal. An empty file of a folder has none: it is "".
 */
const char *modelseal_id(const modelseal_model *model);

/**
 * What is claimed of the model under `key`, such as "licence"; NULL if nothing is.
 */
const char *modelseal_claim(const modelseal_model *model, const char *key);

/**
 * Stores the floor that the grant says: the application has seen the model run, and older versions needn't open any
 * more. Call it after all that is wanted of the model, or of the folder, has been read. What was opened whole is
 * confirmed already. The second time it does nothing. Returns the code; `error` may be NULL.
 */
int32_t modelseal_confirm(const modelseal_model *model,
                          modelseal_error **error);

/**
 * Frees a model and wipes its memory; NULL is fine.
 */
void modelseal_model_free(modelseal_model *model);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MODELSEAL_H */
