//! What lies in memory before the image starts.
//!
//! ```text
//! 0x203f_0000   secret[32]   a device key, or an X25519 private key
//!               key[64]      the publisher's: Ed25519, then zeros; or P-256's x and y; not read by device-key profiles
//!               state[64]    what enrolment writes into an EEPROM
//!               length u32   of the sealed model
//!               length u32   of the grant
//!               grant
//! 0x2100_0000   the sealed model
//! ```

use core::ptr::with_exposed_provenance_mut;
use core::slice;

use modelseal_firmware::eeprom::STATE_LEN;

const GIVEN: usize = 0x203f_0000;
const SEALED: usize = 0x2100_0000;
const SEALED_MAX: usize = 16 << 20;

/// The front of it.
#[repr(C)]
struct Front {
    secret: [u8; 32],
    key: [[u8; 32]; 2],
    state: [u8; STATE_LEN],
    sealed_len: u32,
    grant_len: u32,
}

/// All of it.
pub(crate) struct Given {
    pub(crate) secret: &'static [u8; 32],
    #[cfg(any(feature = "ed25519", feature = "p256"))]
    pub(crate) key: &'static [[u8; 32]; 2],
    pub(crate) state: &'static mut [u8; STATE_LEN],
    pub(crate) grant: &'static [u8],
    pub(crate) sealed: &'static mut [u8],
}

impl Given {
    /// # Safety
    ///
    /// Once only.
    pub(crate) unsafe fn take() -> Self {
        // SAFETY: both ranges are RAM of this board, disjoint, aligned, and neither in `FLASH` nor in `RAM` of
        // memory.x, so the linker has put no object there. Any byte is valid. The caller takes them only once,
        // and no DMA is running.
        unsafe {
            let front = &mut *with_exposed_provenance_mut::<Front>(GIVEN);
            let grant = with_exposed_provenance_mut::<u8>(GIVEN + size_of::<Front>());
            let sealed_len = (front.sealed_len as usize).min(SEALED_MAX);
            Self {
                secret: &front.secret,
                #[cfg(any(feature = "ed25519", feature = "p256"))]
                key: &front.key,
                state: &mut front.state,
                grant: slice::from_raw_parts(grant, front.grant_len as usize),
                sealed: slice::from_raw_parts_mut(with_exposed_provenance_mut(SEALED), sealed_len),
            }
        }
    }
}
