//! The memory that others fill before the board starts, and the stack after it is done.

use core::arch::asm;
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering};

use semihosting::process::exit;
use zeroize::Zeroize;

const PROVISIONED: (usize, usize) = (0x203f_0000, 64 << 10);
const PSRAM: (usize, usize) = (0x2100_0000, 16 << 20);
/// The exit code of [`abandon`].
const ABANDONED: i32 = 1;

/// What lies outside the image's own memory.
pub(crate) struct Memory {
    /// The factory's record, then the surroundings.
    pub(crate) provisioned: &'static mut [u8],
    /// The images.
    pub(crate) psram: &'static mut [u8],
}

impl Memory {
    /// The first time only.
    pub(crate) fn take() -> Option<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: `TAKEN` makes these the only references until `wiped_exit`, after which nobody uses them.
        Some(unsafe { Self::new() })
    }

    /// # Safety
    ///
    /// Nobody uses another one any more.
    unsafe fn new() -> Self {
        let [provisioned, psram] = [PROVISIONED, PSRAM].map(|(start, len)| {
            // SAFETY: both ranges are RAM of this board, disjoint, and neither in `FLASH` nor in `RAM` of
            // memory.x, so the linker has put no object there. Any byte is a valid u8. The caller sees to it
            // that these are the only references in use, and no DMA is running.
            unsafe { slice::from_raw_parts_mut(core::ptr::with_exposed_provenance_mut(start), len) }
        });
        Self { provisioned, psram }
    }
}

/// Whether storage outlives this run.
static KEPT: AtomicBool = AtomicBool::new(false);

/// From here on nothing is opened in PSRAM, and what is stored there stays.
pub(crate) fn keep_psram() {
    KEPT.store(true, Ordering::Relaxed);
}

/// Wipes what may have been opened.
pub(crate) fn wipe_psram(psram: &mut [u8]) {
    if !KEPT.load(Ordering::Relaxed) {
        psram.zeroize();
    }
}

/// Ends in the middle of things, after a panic or a fault, and wipes what was being worked on: registers, the
/// frames of everything that ran, what was provisioned, and the model.
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
    let memory = unsafe { Memory::new() };
    memory.provisioned.zeroize();
    wipe_psram(memory.psram);
    wipe_stack();
    exit(ABANDONED)
}

/// Wipes what functions that have returned left below the stack pointer: moved secrets leave copies there.
#[inline(never)]
pub(crate) fn wipe_stack() {
    let end_of_statics = cortex_m_rt::heap_start();
    // SAFETY: the loop writes from the end of the statics up to the stack pointer. There is no heap, so all of
    // that is the unused part of the stack, in which no live object lies. Interrupts, which would push there,
    // are never enabled. The loop itself touches neither the stack nor any other memory.
    unsafe {
        asm!(
            "2: cmp {at}, sp",
            "itt lo",
            "strlo {zero}, [{at}], #4",
            "blo 2b",
            at = inout(reg) end_of_statics => _,
            zero = in(reg) 0,
            options(nostack),
        );
    }
}
