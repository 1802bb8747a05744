//! What memcheck must report.

use std::hint::black_box;

use crate::secret::secret;

pub(crate) const ALL: [(&str, fn()); 3] = [("branch", branch), ("index", index), ("comparison", comparison)];

/// A branch on a bit of a key.
fn branch() {
    let key = secret([0x35; 32]);
    if black_box(&key)[7] & 4 != 0 {
        println!("the bit is set");
    }
}

/// A table read at a place that a key says.
fn index() {
    let key = secret([0x35; 32]);
    let table: Vec<u8> = (0..=255).collect();
    black_box(black_box(&table)[usize::from(black_box(&key)[7])]);
}

/// A comparison that ends at the first difference.
fn comparison() {
    let key = secret([0x35; 32]);
    if black_box(*key) == black_box([0x35; 32]) {
        println!("they are the same");
    }
}
