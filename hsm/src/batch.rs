//! Grants that are made together are signed together (FORMAT.md, section 6.5): one signature over the root of a tree.
//!
//! ```text
//! leaves ─▶ GrantTree ─▶ Vault::sign_grants ─▶ SignedTree ─▶ a path for each leaf ─▶ UnsignedGrant::sign
//! ```
//!
//! The tree is left-balanced, as in RFC 9162: nodes are paired from the left, and the last one of an odd number goes
//! up as it is. So n leaves have paths of at most ceil(log2 n) siblings.

use modelseal_core::grant::{PathSignature, SIBLINGS_MAX, grants_node};
use modelseal_core::sign::Signature;

use crate::error::Error;

/// Most grants that one signature covers: a path has at most 16 siblings.
pub const BATCH_MAX: usize = 1 << SIBLINGS_MAX;

/// A tree over the leaves of grants, not signed yet.
pub struct GrantTree {
    /// From the leaves to the root, which is alone in the last level.
    levels: Vec<Vec<[u8; 32]>>,
}

impl GrantTree {
    /// Over 1 ..= 65,536 leaves, in this order.
    pub fn new(leaves: Vec<[u8; 32]>) -> Result<Self, Error> {
        if !(1..=BATCH_MAX).contains(&leaves.len()) {
            return Err(modelseal_core::Error::GrantPath.into());
        }
        let mut level = leaves;
        let mut levels = Vec::new();
        while level.len() > 1 {
            let above = level.chunks(2).map(parent).collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        levels.push(level);
        Ok(Self { levels })
    }

    /// What the publisher signs for all of the leaves.
    pub fn root(&self) -> [u8; 32] {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default()
    }

    /// With the vault's signature over the root.
    pub(crate) fn signed(self, signature: Signature) -> SignedTree {
        SignedTree { tree: self, signature }
    }
}

/// Two nodes make one; one alone goes up as it is.
fn parent(nodes: &[[u8; 32]]) -> [u8; 32] {
    match nodes {
        [left, right] => grants_node(left, right),
        _ => nodes.first().copied().unwrap_or_default(),
    }
}

/// A tree whose root the publisher signed.
pub struct SignedTree {
    tree: GrantTree,
    signature: Signature,
}

impl SignedTree {
    /// What completes the grant of leaf number `leaf`; `None` if there is no such leaf.
    pub fn path(&self, leaf: usize) -> Option<PathSignature> {
        self.tree.levels.first()?.get(leaf)?;
        let mut path = PathSignature { signature: self.signature, siblings: Default::default(), sides: 0 };
        let mut index = leaf;
        for level in &self.tree.levels {
            // The root, and a node that went up alone, have none.
            if let Some(sibling) = level.get(index ^ 1) {
                path.sides |= u16::from(index & 1 == 1) << path.siblings.len();
                path.siblings.push(*sibling).ok()?;
            }
            index /= 2;
        }
        Some(path)
    }
}
