// Stops the engine after so many blocks: a hook of unicorn's, UC_HOOK_BLOCK.

#include <stdint.h>

struct count {
    uint64_t left;
    int (*stop)(void *engine);
};

void block(void *engine, uint64_t address, uint32_t size, struct count *count) {
    (void)address;
    (void)size;
    if (count->left > 0) {
        count->left--;
    }
    if (count->left == 0) {
        count->stop(engine);
    }
}
