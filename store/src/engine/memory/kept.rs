//! What is in memory, from one store process to the next.
//!
//! ```text
//! Begin   Documents…   Changes…   Responses…   End   Requests…   End      one frame each, about a mebibyte long
//! ```
//!
//! A version that knows no requests reads up to the first end, and writes nothing after it.
//!
//! It is the state as a certain change left it, and right for that number alone: a store that finds another number on the
//! board must not use it.
//!
//! Unique values are not part of it: the next store gives the indexes of what is in memory numbers of its own, and fills
//! them from the documents.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use aegis_ipc::{
    IpcError, codec,
    data::{Change, Stored},
    frame,
};
use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use super::{MemoryEngine, State, change_bytes, empty_shards, shard_of};
use crate::engine::{CommittedWrite, KeptRequests, KeptResponse, UniqueEdit};

/// Version of [`Piece`].
const FORMAT: u32 = 1;
/// A piece takes nothing more once what is in it has this many bytes.
const PIECE_BYTES: usize = 1 << 20;
/// Rough bytes of an item beside its content.
const ITEM_OVERHEAD_BYTES: usize = 128;
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// What a store had in memory.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Number of the last change that was committed, in whichever engine.
    pub(crate) committed: u64,
    /// Everything.
    pub(crate) engine: MemoryEngine,
    /// Which writes it came from lately, to know those that are sent again.
    pub(crate) requests: Vec<KeptRequests>,
}

#[derive(Serialize, Deserialize)]
enum Piece {
    Begin {
        format: u32,
        committed: u64,
        last: u64,
        log_oldest: u64,
    },
    Documents(Vec<Stored>),
    Changes(Vec<Change>),
    /// Written by versions before, under the numbers that their indexes had; not used.
    Unique(Vec<UniqueEdit>),
    Responses(Vec<KeptResponse>),
    End,
    Requests(Vec<KeptRequests>),
}

impl MemoryEngine {
    /// Writes everything down, as the change with the number `committed` left it, and the requests it came from.
    pub(crate) fn keep(
        &self,
        committed: u64,
        requests: impl Iterator<Item = KeptRequests>,
        output: &mut dyn Write,
    ) -> Result<(), IpcError> {
        let state = self.state.read();
        let State { last, log_oldest, .. } = *state;
        write(output, &Piece::Begin { format: FORMAT, committed, last, log_oldest })?;
        let documents = state.documents.values().flatten().flat_map(|shard| shard.values());
        let documents = documents
            .map(|stored| (stored.model.len() + stored.id.len() + stored.body.len(), Stored::clone(stored)));
        in_pieces(output, documents, Piece::Documents)?;
        let changes = state.log.iter().map(|change| (change_bytes(change), change.clone()));
        in_pieces(output, changes, Piece::Changes)?;
        let responses = state.responses.values().map(|kept| {
            (kept.key.len() + kept.fingerprint.len() + kept.response.len(), KeptResponse::clone(kept))
        });
        in_pieces(output, responses, Piece::Responses)?;
        write(output, &Piece::End)?;
        let requests = requests.map(|group| (group.writes.len() * size_of::<CommittedWrite>(), group));
        in_pieces(output, requests, Piece::Requests)?;
        write(output, &Piece::End)
    }
}

impl Kept {
    /// Reads what [`MemoryEngine::keep`] wrote.
    ///
    /// # Errors
    /// It is cut short, damaged, or of another version.
    pub(crate) fn read(input: &mut dyn Read) -> Result<Self, IpcError> {
        let mut pieces = Pieces { input, buffer: BytesMut::new() };
        let Piece::Begin { format: FORMAT, committed, last, log_oldest } = pieces.next()? else {
            return Err(unexpected("something else in front", "the beginning, in format 1"));
        };
        let mut state = State { last, log_oldest, ..State::default() };
        loop {
            match pieces.next()? {
                Piece::Begin { .. } => return Err(unexpected("a second beginning", "one")),
                Piece::Documents(documents) => documents.into_iter().for_each(|stored| state.put(stored)),
                Piece::Changes(changes) => {
                    state.log_bytes += changes.iter().map(change_bytes).sum::<usize>();
                    state.log.extend(changes);
                }
                Piece::Unique(_) => {}
                Piece::Responses(responses) => responses.into_iter().for_each(|kept| state.respond(kept)),
                Piece::Requests(_) => {
                    return Err(unexpected("requests in front of the end", "them after it"));
                }
                Piece::End => break,
            }
        }
        let requests = pieces.requests()?;
        Ok(Self { committed, engine: MemoryEngine { state: state.into() }, requests })
    }
}

impl State {
    fn put(&mut self, stored: Stored) {
        let shards = self.documents.entry(stored.model.clone()).or_insert_with(empty_shards);
        let shard = Arc::make_mut(&mut shards[shard_of(&stored.id)]);
        shard.insert(Arc::from(stored.id.as_str()), Arc::new(stored));
    }
}

fn in_pieces<T>(
    output: &mut dyn Write,
    items: impl Iterator<Item = (usize, T)>,
    piece: impl Fn(Vec<T>) -> Piece,
) -> Result<(), IpcError> {
    let (mut bytes, mut taken) = (0, Vec::new());
    for (length, item) in items {
        bytes += length + ITEM_OVERHEAD_BYTES;
        taken.push(item);
        if bytes >= PIECE_BYTES {
            write(output, &piece(std::mem::take(&mut taken)))?;
            bytes = 0;
        }
    }
    if taken.is_empty() { Ok(()) } else { write(output, &piece(taken)) }
}

fn write(output: &mut dyn Write, piece: &Piece) -> Result<(), IpcError> {
    let mut bytes = Vec::new();
    frame::write_message(piece, &mut bytes)?;
    output
        .write_all(&bytes)
        .map_err(|error| IpcError::os("writing what is in memory for the next store", error))
}

struct Pieces<'a> {
    input: &'a mut dyn Read,
    buffer: BytesMut,
}

impl Pieces<'_> {
    fn next(&mut self) -> Result<Piece, IpcError> {
        self.next_if_any()?.ok_or_else(cut_short)
    }

    /// What follows the first end: nothing where a version before has written it.
    fn requests(&mut self) -> Result<Vec<KeptRequests>, IpcError> {
        let mut requests = Vec::new();
        let mut next = self.next_if_any()?;
        while let Some(piece) = next {
            match piece {
                Piece::Requests(groups) => requests.extend(groups),
                Piece::End => break,
                Piece::Begin { .. }
                | Piece::Documents(_)
                | Piece::Changes(_)
                | Piece::Unique(_)
                | Piece::Responses(_) => return Err(unexpected("something else after the end", "requests")),
            }
            next = Some(self.next()?);
        }
        Ok(requests)
    }

    /// The next piece, none when everything was read.
    fn next_if_any(&mut self) -> Result<Option<Piece>, IpcError> {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            if let Some(payload) = frame::take(&mut self.buffer)? {
                return codec::decode(&payload).map(Some);
            }
            match self.input.read(&mut bytes) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(cut_short()),
                Ok(length) => self.buffer.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(IpcError::os("reading what the store before had in memory", error)),
            }
        }
    }
}

fn cut_short() -> IpcError {
    unexpected("an end in the middle", "a mark at the end")
}

fn unexpected(found: &str, expected: &str) -> IpcError {
    IpcError::Unexpected {
        object: "what the store before had in memory".to_owned(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_after_the_end_that_versions_before_look_for_and_may_be_missing() {
        let writes = vec![CommittedWrite { incarnation: 1, request: 2, first: 3, last: 4 }];
        let requests = vec![KeptRequests { time_ms: 5, writes }];
        let (mut kept, mut end) = (Vec::new(), Vec::new());
        MemoryEngine::new().keep(7, requests.iter().cloned(), &mut kept).unwrap();
        let read = Kept::read(&mut &*kept).unwrap();
        assert_eq!((read.committed, read.requests), (7, requests));

        write(&mut end, &Piece::End).unwrap();
        let first_end = kept.windows(end.len()).position(|bytes| bytes == end).unwrap() + end.len();
        let before = Kept::read(&mut &kept[..first_end]).unwrap();
        assert_eq!((before.committed, before.requests), (7, Vec::new()));
        for length in [first_end + 1, kept.len() - end.len(), kept.len() - 1] {
            let error = Kept::read(&mut &kept[..length]).unwrap_err().to_string();
            assert!(error.contains("an end in the middle"), "{length}: {error}");
        }
    }
}
