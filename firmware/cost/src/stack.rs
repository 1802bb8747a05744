//! How deep the stack went: it is painted before, and whatever lost its paint was used.

use core::arch::asm;

const PAINT: u32 = 0xa5c3_965a;

/// Paints all of the stack that isn't in use.
#[inline(never)]
pub(crate) fn paint() {
    let end_of_statics = cortex_m_rt::heap_start();
    // SAFETY: the loop writes from the end of the statics up to the stack pointer. There is no heap, so all of
    // that is the unused part of the stack, in which no live object lies. Interrupts, which would push there,
    // are never enabled. The loop itself touches neither the stack nor any other memory.
    unsafe {
        asm!(
            "2: cmp {at}, sp",
            "itt lo",
            "strlo {paint}, [{at}], #4",
            "blo 2b",
            at = inout(reg) end_of_statics => _,
            paint = in(reg) PAINT,
            options(nostack),
        );
    }
}

/// From the top of the stack to the deepest word without paint, in bytes.
pub(crate) fn peak() -> u32 {
    unsafe extern "C" {
        // link.x defines it.
        static _stack_start: u32;
    }
    let top = &raw const _stack_start;
    let mut at: *const u32 = cortex_m_rt::heap_start();
    // SAFETY: every word from the end of the statics to the top of the stack is RAM of this board.
    while at < top && unsafe { at.read_volatile() } == PAINT {
        at = at.wrapping_add(1);
    }
    u32::try_from(top.addr().wrapping_sub(at.addr())).unwrap_or(u32::MAX)
}
