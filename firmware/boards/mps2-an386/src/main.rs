//! The image of the Arm MPS2 board with FPGA image AN386 (Cortex-M4F): finds a sealed model in memory-mapped
//! storage, opens it where it lies and says so.
//!
//! ```text
//! 0x0000_0000   4 MiB           SSRAM 1     this image
//! 0x2000_0000   4 MiB - 64 KiB  SSRAM 2, 3  its data and its stack
//! 0x203f_0000   64 KiB          SSRAM 2, 3  the factory's `Provisioned`, then the `Delivery`; wiped once read
//! 0x2100_0000   16 MiB          PSRAM       the sealed model, from the first byte
//! 0x4002_a000                   I2C         AT24C64 at 0x50: the stored floor, at its byte 0
//! ```
//!
//! Whoever starts the board writes the last three; `firmware/boot` does so for QEMU. What the board does goes
//! to defmt over semihosting. The last frame is the verdict, `opened LINE VERSION LENGTH blake3=HEX` or
//! `refused CODE NAME`, and the exit code is 0 or the error's class.

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
mod run;

/// On a PC there is nothing to do.
#[cfg(not(target_os = "none"))]
fn main() {}
