//! Tokens that were verified before: whom they name, and from when until when.
//!
//! A signature is as good at any time; what changes is the clock, which is asked for every request anew. What is kept is true
//! for one set of keys and terms, and belongs to the gate that has them: a generation with other keys begins with nothing.
//! Refusals are not kept, so that nobody without a token can push out those who have one.

use std::{ops::Range, sync::Arc};

use aegis_domain::{access::Principal, document::memory_bytes};
use quick_cache::{Weighter, sync::Cache};
use ring::digest::{SHA256, digest};

use super::{
    keys::Keys,
    token::{self, Mistake, TOKEN_BYTES_MAX, Terms},
};

/// Most tokens that a worker remembers.
const ENTRIES_MAX: usize = 4096;
/// Most bytes of whom they name, in memory.
const BYTES_MAX: u64 = 8 << 20;
/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// SHA-256 of a whole token: what is verified is not kept itself.
type TokenDigest = [u8; DIGEST_BYTES];

/// The tokens of one gate.
pub(super) struct Known {
    tokens: Cache<TokenDigest, Remembered, Footprint>,
}

/// What a token that was verified says.
#[derive(Clone)]
struct Remembered {
    principal: Arc<Principal>,
    /// When the token counts, seconds since 1970.
    window_s: Range<i64>,
}

/// Bytes of an entry. None counts for less than its share, so that the bound in bytes is one in entries too.
#[derive(Clone)]
struct Footprint {
    least_bytes: u64,
}

impl Weighter<TokenDigest, Remembered> for Footprint {
    fn weight(&self, _: &TokenDigest, remembered: &Remembered) -> u64 {
        let Principal { subject, roles, claims } = &*remembered.principal;
        let names: usize = roles.iter().map(|role| size_of::<String>() + role.len()).sum();
        let own = DIGEST_BYTES + size_of::<Remembered>() + size_of::<Principal>();
        let bytes = own + subject.len() + names + memory_bytes(claims);
        u64::try_from(bytes).unwrap_or(u64::MAX).max(self.least_bytes)
    }
}

impl Default for Known {
    fn default() -> Self {
        Self::bounded(ENTRIES_MAX, BYTES_MAX)
    }
}

impl Known {
    pub(super) fn bounded(entries_max: usize, bytes_max: u64) -> Self {
        let least_bytes = bytes_max.div_ceil(u64::try_from(entries_max).unwrap_or(u64::MAX).max(1));
        Self { tokens: Cache::with_weighter(entries_max, bytes_max, Footprint { least_bytes }) }
    }

    /// Whom a token names at `now_s`, seconds since 1970: what [`token::read`] says of it. Always the same keys and terms.
    ///
    /// # Errors
    /// Why nobody is known.
    pub(super) fn read(
        &self,
        token: &str,
        (keys, terms): (&Keys, &Terms),
        now_s: i64,
    ) -> Result<Arc<Principal>, Mistake> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Mistake::TooLong);
        }
        let mut name = TokenDigest::default();
        name.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(remembered) = self.tokens.get(&name) {
            if remembered.window_s.contains(&now_s) {
                return Ok(remembered.principal);
            }
            self.tokens.remove(&name);
        }
        let principal = Arc::new(token::read(token, keys, terms, now_s)?);
        let window_s = token::window_s(&principal.claims, terms)?;
        self.tokens.insert(name, Remembered { principal: Arc::clone(&principal), window_s });
        Ok(principal)
    }

    /// Tokens that are remembered, and what they count for.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, u64) {
        (self.tokens.len(), self.tokens.weight())
    }
}
