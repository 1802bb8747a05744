//! The memory at fixed addresses: what the factory wrote, the model's, and the stack after it is done.

use core::arch::asm;
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering};

use semihosting::process::exit;
use zeroize::Zeroize;

const PROVISIONED: (usize, usize) = (0x0003_fc00, 1 << 10);
const STACK: usize = 0x2000_0000;
const MODEL: (usize, usize) = (0x2000_6000, 40 << 10);
/// The exit code of [`abandon`].
const ABANDONED: i32 = 1;

/// The last page of flash: the factory's record, then the surroundings.
pub(crate) fn provisioned() -> &'static [u8] {
    let (start, len) = PROVISIONED;
    // SAFETY: the range is flash of this board and not in `FLASH` of memory.x, so the linker has put no object there.
    // Any byte is a valid u8, and none changes: nothing here writes flash.
    unsafe { slice::from_raw_parts(with_exposed_provenance(start), len) }
}

/// The model's memory, the first time only.
pub(crate) fn take_model() -> Option<&'static mut [u8]> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: `TAKEN` makes this the only reference until `wiped_exit`, after which nobody uses it.
    Some(unsafe { model() })
}

/// # Safety
///
/// Nobody uses another one any more.
unsafe fn model() -> &'static mut [u8] {
    let (start, len) = MODEL;
    // SAFETY: the range is RAM of this board and not in `RAM` of memory.x, nor below it, where the stack is, so no
    // object lies there. Any byte is a valid u8. The caller sees to it that this is the only reference in use, and
    // no DMA is running.
    unsafe { slice::from_raw_parts_mut(with_exposed_provenance_mut(start), len) }
}

/// Ends in the middle of things, after a panic or a fault, and wipes what was being worked on: registers, the
/// frames of everything that ran, and the model.
pub(crate) fn abandon() -> ! {
    // SAFETY: nothing that has run is ever returned to, so the stack may begin at its top again, as after
    // reset, and no register is needed.
    unsafe {
        asm!(
            "ldr r0, =_stack_start",
            "mov sp, r0",
            "movs r1, #0",
            "movs r2, #0",
            "movs r3, #0",
            "movs r4, #0",
            "movs r5, #0",
            "movs r6, #0",
            "movs r7, #0",
            "mov r8, r1",
            "mov r9, r1",
            "mov r10, r1",
            "mov r11, r1",
            "mov r12, r1",
            "b {wiped_exit}",
            wiped_exit = sym wiped_exit,
            options(noreturn),
        )
    }
}

extern "C" fn wiped_exit() -> ! {
    // SAFETY: `abandon` has made sure that whoever took the memory never runs again.
    unsafe { model() }.zeroize();
    wipe_stack();
    exit(ABANDONED)
}

/// Wipes what functions that have returned left below the stack pointer: moved secrets leave copies there.
#[inline(never)]
pub(crate) fn wipe_stack() {
    // SAFETY: the loop writes from the stack's end up to the stack pointer. All of that is the unused part of the
    // stack, in which no live object lies. Interrupts, which would push there, are never enabled. The loop itself
    // touches neither the stack nor any other memory.
    unsafe {
        asm!(
            "2: cmp {at}, sp",
            "itt lo",
            "strlo {zero}, [{at}], #4",
            "blo 2b",
            at = inout(reg) STACK => _,
            zero = in(reg) 0,
            options(nostack),
        );
    }
}
