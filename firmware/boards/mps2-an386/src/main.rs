//! The image of the Arm MPS2 board with FPGA image AN386 (Cortex-M4F): chooses one of two sealed models in
//! memory-mapped storage, opens it where it lies and says so; or takes an update.
//!
//! ```text
//! 0x0000_0000   4 MiB           SSRAM 1     this image
//! 0x2000_0000   4 MiB - 64 KiB  SSRAM 2, 3  its data and its stack
//! 0x203f_0000   64 KiB          SSRAM 2, 3  the factory's `Provisioned`, then `Surroundings`; wiped once read
//! 0x2100_0000   8 MiB           PSRAM       sealed model A, from the first byte
//! 0x2180_0000   8 MiB           PSRAM       sealed model B
//! 0x4000_4000                   UART 0      updates
//! 0x4002_a000                   I2C         AT24C64 at 0x50: the state at its byte 0, what was delivered beside
//!                                           A at 0x400 and beside B at 0x1000
//! ```
//!
//! PSRAM stands for memory-mapped storage. To open a model it is filled anew at each start, so what is decrypted
//! there doesn't last; for an update it is what lasts. Whoever starts the board fills it and what is provisioned;
//! `firmware/boot` does so for QEMU. What the board does goes to defmt over semihosting. The last frame is the
//! verdict, `opened LINE VERSION LENGTH blake3=HEX`, `updated LINE VERSION` or `refused CODE NAME`, and the exit
//! code is 0 or the error's class.

#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(
    target_os = "none",
    allow(unsafe_code, reason = "memory and registers at fixed addresses, and the stack")
)]

#[cfg(target_os = "none")]
mod board;
#[cfg(target_os = "none")]
mod i2c;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod places;
#[cfg(target_os = "none")]
mod run;
#[cfg(target_os = "none")]
mod uart;

/// On a PC there is nothing to do.
#[cfg(not(target_os = "none"))]
fn main() {}
