//! The image of the Stellaris LM3S6965 evaluation board (Cortex-M3): chooses one of two sealed models on an SD card,
//! opens it into the RAM that is there and says so.
//!
//! ```text
//! 0x0000_0000   255 KiB   flash   this image
//! 0x0003_fc00   1 KiB     flash   the factory's `Provisioned`, then `Surroundings`
//! 0x2000_0000   23 KiB    RAM     the stack
//! 0x2000_5c00   1 KiB     RAM     the image's data
//! 0x2000_6000   40 KiB    RAM     the model
//! 0x4000_7000             GPIO    port D, pin 0: selects the SD card
//! 0x4000_8000             SSI     the SD card: sealed models A.SLD and B.SLD, grants A.GRT and B.GRT, in the root of
//!                                 the FAT16 of its first partition
//! 0x4002_0000             I2C     AT24C64 at 0x50: the state, at its byte 0
//! ```
//!
//! Whoever starts the board fills the flash and the chips; `firmware/boot` does so for QEMU. The card is only read, so
//! this board takes no updates over a line: they come with the card. What the board does goes to defmt over
//! semihosting. The last frame is the verdict, `opened LINE VERSION LENGTH blake3=HEX` or `refused CODE NAME`, and the
//! exit code is 0 or the error's class.

#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(
    target_os = "none",
    allow(unsafe_code, reason = "memory and registers at fixed addresses, and the stack")
)]

#[cfg(target_os = "none")]
mod board;
#[cfg(target_os = "none")]
mod card;
#[cfg(target_os = "none")]
mod chip;
#[cfg(target_os = "none")]
mod i2c;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod places;
#[cfg(target_os = "none")]
mod run;
#[cfg(target_os = "none")]
mod spi;
#[cfg(target_os = "none")]
mod volume;

/// On a PC there is nothing to do.
#[cfg(not(target_os = "none"))]
fn main() {}
