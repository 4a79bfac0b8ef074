//! One generation, pinned: resolved configuration, catalog and compiled code under one digest, in a sealed memory file.
//!
//! The compile helper writes it, the supervisor hands it on unread but for the configuration, workers and the store
//! read it. The seal makes the bytes immutable for everybody, so all processes of a generation see the same ones.
//!
//! ```text
//! 0         8               16
//! │ "AEGISGEN" │ length, LE │ front: MessagePack of Bundle │ … │ code │ … │ code │ …
//!                                                             └─ each from a multiple of CODE_ALIGNMENT
//! ```
//!
//! Reading a bundle reads the front alone: the store and the supervisor have no use for code, and workers map it.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use serde::{Deserialize, Serialize};

use crate::{IpcError, codec, deploy::Member, sealed};

/// Layout of [`Bundle`] itself.
pub const BUNDLE_FORMAT: u32 = 2;
/// Largest bundle, bytes, code included.
pub const BUNDLE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Largest front, bytes.
pub const FRONT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Alignment of code inside a bundle, bytes. A multiple of every page size that Linux has on the machines we run on.
pub const CODE_ALIGNMENT: u64 = 65_536;

/// What a bundle begins with.
const MAGIC: [u8; 8] = *b"AEGISGEN";
/// Bytes in front of the front.
const HEADER_BYTES: u64 = 16;

/// One generation, without the code itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// [`BUNDLE_FORMAT`].
    pub format: u32,
    /// Digest over configuration, catalog, what was deployed and who signed, hexadecimal: equal digests mean nothing to do.
    /// The catalog names the digest of every component, so it stands for the code as well.
    pub digest: String,
    /// Who can run the code: the compatibility tag of the compiler that made it. Empty without code.
    #[serde(default)]
    pub engine: String,
    /// MessagePack of the resolved configuration.
    #[serde(with = "serde_bytes")]
    pub config: Vec<u8>,
    /// The catalog's modules, opaque here.
    #[serde(with = "serde_bytes")]
    pub catalog: Vec<u8>,
    /// Where the code of each component is.
    #[serde(default)]
    pub code: Vec<CodePlace>,
    /// The modules that it consists of.
    #[serde(default)]
    pub modules: Vec<Member>,
}

/// Where the code of a component lies in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodePlace {
    /// SHA-256 of the component, hexadecimal: what the catalog knows it by.
    pub digest: String,
    /// First byte, a multiple of [`CODE_ALIGNMENT`].
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// Code on its way into a bundle.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    /// SHA-256 of the component that it was compiled from, hexadecimal.
    pub digest: String,
    /// The code.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Code of {} ({} bytes)", self.digest, self.bytes.len())
    }
}

impl Bundle {
    /// Writes a bundle without code into a new sealed memory file.
    pub fn seal(&self) -> Result<OwnedFd, IpcError> {
        self.seal_with(Vec::new())
    }

    /// Writes the bundle and its code into a new sealed memory file. The code of each component is let go of as soon as
    /// it is written, so that it is in memory twice only one component at a time.
    pub fn seal_with(&self, code: Vec<Code>) -> Result<OwnedFd, IpcError> {
        let failed = |error| IpcError::os("writing a bundle", error);
        let (front, places) = self.lay_out(&code)?;
        let end = places.last().map_or(HEADER_BYTES + front.len() as u64, |last| last.offset + last.length);
        within(end, BUNDLE_BYTES_MAX)?;
        let file = sealed::create("aegis-bundle")?;
        file.set_len(end).map_err(failed)?;
        file.write_all_at(&MAGIC, 0).map_err(failed)?;
        file.write_all_at(&(front.len() as u64).to_le_bytes(), MAGIC.len() as u64).map_err(failed)?;
        file.write_all_at(&front, HEADER_BYTES).map_err(failed)?;
        drop(front);
        for (code, place) in code.into_iter().zip(places) {
            file.write_all_at(&code.bytes, place.offset).map_err(failed)?;
        }
        sealed::seal(file)
    }

    /// The encoded front, and where code goes. The front names places that depend on its own length; each round can only
    /// move them further back, by whole alignments, so there are one or two.
    fn lay_out(&self, code: &[Code]) -> Result<(Vec<u8>, Vec<CodePlace>), IpcError> {
        let mut start = CODE_ALIGNMENT;
        loop {
            let places = places(code, start);
            let front = codec::encode(&Self { code: places.clone(), ..self.clone() })?;
            within(front.len() as u64, FRONT_BYTES_MAX)?;
            let end = HEADER_BYTES + front.len() as u64;
            if code.is_empty() || end <= start {
                return Ok((front, places));
            }
            start = end.next_multiple_of(CODE_ALIGNMENT);
        }
    }

    /// Reads a bundle back, all but the code. Uses no file position: processes share the one of an inherited descriptor.
    pub fn read(descriptor: &OwnedFd) -> Result<Self, IpcError> {
        let clone = descriptor.try_clone().map_err(|error| IpcError::os("duplicating a bundle", error))?;
        Self::read_from(&File::from(clone), 0)
    }

    /// The same, for a bundle that begins at `start` of a file.
    pub fn read_from(file: &File, start: u64) -> Result<Self, IpcError> {
        let failed = |error| IpcError::os("reading a bundle", error);
        let length = file.metadata().map_err(|error| IpcError::os("measuring a bundle", error))?.len();
        let length = length.saturating_sub(start);
        within(length, BUNDLE_BYTES_MAX)?;
        if length < HEADER_BYTES {
            return Err(unexpected("a generation bundle", format!("{length} bytes"), "a header at least"));
        }
        let mut header = [0; HEADER_BYTES as usize];
        file.read_exact_at(&mut header, start).map_err(failed)?;
        let (magic, front_length) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            let expected = "the layout of this version";
            return Err(unexpected("a generation bundle", "another beginning".to_owned(), expected));
        }
        let front_length = front_length.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        within(front_length, FRONT_BYTES_MAX)?;
        if front_length > length - HEADER_BYTES {
            let expected = format!("{front_length} behind the header at least");
            return Err(unexpected("a generation bundle", format!("{length} bytes"), &expected));
        }
        let mut front = vec![0; front_length as usize];
        file.read_exact_at(&mut front, start + HEADER_BYTES).map_err(failed)?;
        let bundle: Self = codec::decode(&front)?;
        if bundle.format != BUNDLE_FORMAT {
            let expected = BUNDLE_FORMAT.to_string();
            return Err(unexpected("format of a generation bundle", bundle.format.to_string(), &expected));
        }
        bundle.check_places(HEADER_BYTES + front_length, length)?;
        Ok(bundle)
    }

    /// Code must lie behind the front and within the file.
    fn check_places(&self, front_end: u64, length: u64) -> Result<(), IpcError> {
        let lies_well = |place: &CodePlace| {
            let end = place.offset.checked_add(place.length);
            place.offset.is_multiple_of(CODE_ALIGNMENT)
                && place.offset >= front_end
                && end.is_some_and(|end| end <= length)
        };
        match self.code.iter().find(|place| !lies_well(place)) {
            None => Ok(()),
            Some(CodePlace { digest, offset, length: bytes }) => {
                let found = format!("{bytes} bytes from {offset} in a file of {length}");
                let expected = format!("a place behind the front, from a multiple of {CODE_ALIGNMENT}");
                Err(unexpected(&format!("the code of component {digest}"), found, &expected))
            }
        }
    }

    /// Where the code of the component with this digest is.
    #[must_use]
    pub fn place_of(&self, digest: &str) -> Option<&CodePlace> {
        self.code.iter().find(|place| place.digest == digest)
    }

    /// Reads the code at one of [`Bundle::code`], from the descriptor that the bundle was read from.
    pub fn read_code(descriptor: &OwnedFd, place: &CodePlace) -> Result<Code, IpcError> {
        let failed = |error| IpcError::os("reading code of a bundle", error);
        let file = File::from(descriptor.try_clone().map_err(failed)?);
        let mut bytes = vec![0; usize::try_from(place.length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, place.offset).map_err(failed)?;
        Ok(Code { digest: place.digest.clone(), bytes })
    }
}

/// One after the other from `start`, each at the next multiple of the alignment.
fn places(code: &[Code], start: u64) -> Vec<CodePlace> {
    let mut offset = start;
    let place = |code: &Code| {
        let place = CodePlace { digest: code.digest.clone(), offset, length: code.bytes.len() as u64 };
        offset = (place.offset + place.length).next_multiple_of(CODE_ALIGNMENT);
        place
    };
    code.iter().map(place).collect()
}

fn within(length_bytes: u64, max_bytes: u64) -> Result<(), IpcError> {
    if length_bytes > max_bytes { Err(IpcError::FrameTooLarge { length_bytes, max_bytes }) } else { Ok(()) }
}

fn unexpected(object: &str, found: String, expected: &str) -> IpcError {
    IpcError::Unexpected { object: object.to_owned(), found, expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn bundle(catalog_bytes: usize) -> Bundle {
        Bundle {
            format: BUNDLE_FORMAT,
            digest: "d".into(),
            engine: "e".into(),
            config: vec![1, 2],
            catalog: vec![3; catalog_bytes],
            code: Vec::new(),
            modules: Vec::new(),
        }
    }

    fn code(digest: &str, length: usize) -> Code {
        Code { digest: digest.to_owned(), bytes: (0..length).map(|at| (at % 251) as u8).collect() }
    }

    #[test]
    fn a_bundle_reads_back_as_often_as_wanted_and_cannot_be_changed() {
        let bundle = bundle(1);
        let descriptor = bundle.seal().unwrap();
        assert_eq!(Bundle::read(&descriptor).unwrap(), bundle);
        assert_eq!(Bundle::read(&descriptor).unwrap(), bundle);
        let mut file = File::from(descriptor);
        assert!(file.write_all(b"x").is_err());
    }

    #[test]
    fn code_lies_behind_the_front_each_at_the_start_of_a_page() {
        // Fronts that end just before, at and behind a boundary, and a long one.
        for catalog_bytes in [0, 65_000, 65_300, 65_400, 65_520, 65_536, 300_000] {
            let codes = [code("a", 1), code("b", 65_536), code("c", 100_000)];
            let descriptor = bundle(catalog_bytes).seal_with(codes.to_vec()).unwrap();
            let read = Bundle::read(&descriptor).unwrap();
            assert_eq!(read.catalog.len(), catalog_bytes);
            let file = File::from(descriptor);
            for code in &codes {
                let place = read.place_of(&code.digest).unwrap();
                assert_eq!(place.offset % CODE_ALIGNMENT, 0);
                let mut bytes = vec![0; place.length as usize];
                file.read_exact_at(&mut bytes, place.offset).unwrap();
                assert!(bytes == code.bytes, "{} of {catalog_bytes}", code.digest);
            }
            assert_eq!(read.place_of("another"), None);
        }
    }

    #[test]
    fn only_the_front_is_read() {
        let descriptor = bundle(10).seal_with(vec![code("a", 10)]).unwrap();
        let length = File::from(descriptor.try_clone().unwrap()).metadata().unwrap().len();
        assert_eq!(length, CODE_ALIGNMENT + 10, "nothing follows the code");
        // The same front in a file whose code is a hole of half a gigabyte.
        let read = Bundle::read(&descriptor).unwrap();
        let place = CodePlace { digest: "a".into(), offset: CODE_ALIGNMENT, length: 512 << 20 };
        let front = codec::encode(&Bundle { code: vec![place], ..read }).unwrap();
        let descriptor = by_hand(&MAGIC, front.len() as u64, &front, CODE_ALIGNMENT + (512 << 20));
        assert_eq!(Bundle::read(&descriptor).unwrap().code[0].length, 512 << 20);
    }

    fn by_hand(magic: &[u8], front_length: u64, front: &[u8], length: u64) -> OwnedFd {
        let mut file = sealed::create("test").unwrap();
        file.write_all(magic).unwrap();
        file.write_all(&front_length.to_le_bytes()).unwrap();
        file.write_all(front).unwrap();
        file.set_len(length).unwrap();
        sealed::seal(file).unwrap()
    }

    #[test]
    fn what_is_no_bundle_is_refused_with_what_was_found() {
        let front = codec::encode(&bundle(1)).unwrap();
        let whole = HEADER_BYTES + front.len() as u64;
        let length = front.len() as u64;
        let message = |descriptor: OwnedFd| Bundle::read(&descriptor).unwrap_err().to_string();
        let later = codec::encode(&Bundle { format: 3, ..bundle(1) }).unwrap();
        let misplaced = |offset, length| {
            let code = vec![CodePlace { digest: "a".into(), offset, length }];
            let front = codec::encode(&Bundle { code, ..bundle(1) }).unwrap();
            by_hand(&MAGIC, front.len() as u64, &front, 2 * CODE_ALIGNMENT)
        };
        let messages = [
            message(by_hand(b"", 0, b"", 7)),
            message(by_hand(b"AEGISXYZ", length, &front, whole)),
            message(by_hand(&MAGIC, length + 1, &front, whole)),
            message(by_hand(&MAGIC, length - 1, &front, whole)),
            message(by_hand(&MAGIC, length, &front, BUNDLE_BYTES_MAX + 1)),
            message(by_hand(&MAGIC, later.len() as u64, &later, 1000)),
            message(misplaced(0, 1)),
            message(misplaced(CODE_ALIGNMENT + 1, 1)),
            message(misplaced(CODE_ALIGNMENT, CODE_ALIGNMENT + 1)),
            message(misplaced(u64::MAX - 65_535, u64::MAX)),
        ];
        insta::assert_snapshot!(messages.join("\n"), @"
        a generation bundle: found 7 bytes, expected a header at least
        a generation bundle: found another beginning, expected the layout of this version
        a generation bundle: found 80 bytes, expected 65 behind the header at least
        cannot decode aegis_ipc::bundle::Bundle
        frame of 1073741825 bytes refused: at most 1073741824 are accepted
        format of a generation bundle: found 3, expected 2
        the code of component a: found 1 bytes from 0 in a file of 131072, expected a place behind the front, from a multiple of 65536
        the code of component a: found 1 bytes from 65537 in a file of 131072, expected a place behind the front, from a multiple of 65536
        the code of component a: found 65537 bytes from 65536 in a file of 131072, expected a place behind the front, from a multiple of 65536
        the code of component a: found 18446744073709551615 bytes from 18446744073709486080 in a file of 131072, expected a place behind the front, from a multiple of 65536
        ");
    }

    #[test]
    fn a_bundle_that_is_too_large_is_not_sealed() {
        let much = vec![code("a", 1), Code { digest: "b".into(), bytes: Vec::new() }];
        let places = places(&much, CODE_ALIGNMENT);
        assert_eq!(places[1], CodePlace { digest: "b".into(), offset: 2 * CODE_ALIGNMENT, length: 0 });
        assert!(within(BUNDLE_BYTES_MAX + 1, BUNDLE_BYTES_MAX).is_err());
    }
}
