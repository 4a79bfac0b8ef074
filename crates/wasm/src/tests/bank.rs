//! A host with a secret, which takes note of what it is asked to send.

use std::sync::atomic::{AtomicU32, Ordering};

use super::NOTHING;
use crate::{
    Entity, Measurement, OutgoingError, Page, Refusal, Search, SecretText, Sent, Served, Services,
    StreamedBody, Waits, Write, services::Asker,
};

/// What code is to say to nobody.
pub(super) const SECRET: &str = "hush-hush";

#[derive(Default)]
pub(super) struct Bank {
    sent: AtomicU32,
    measured: AtomicU32,
}

impl Bank {
    /// How many requests it was asked to send.
    pub(super) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How often code measured something.
    pub(super) fn measured(&self) -> u32 {
        self.measured.load(Ordering::Relaxed)
    }
}

impl Services for Bank {
    fn find<'a>(&'a self, asker: Asker<'a>, model: &'a str, id: &'a str) -> Served<'a, Option<Entity>> {
        NOTHING.find(asker, model, id)
    }

    fn search<'a>(&'a self, asker: Asker<'a>, model: &'a str, search: Search) -> Served<'a, Page> {
        NOTHING.search(asker, model, search)
    }

    fn write<'a>(&'a self, asker: Asker<'a>, model: &'a str, write: Write) -> Served<'a, Entity> {
        NOTHING.write(asker, model, write)
    }

    fn write_batch<'a>(
        &'a self,
        asker: Asker<'a>,
        model: &'a str,
        writes: Vec<Write>,
    ) -> Served<'a, Vec<Entity>> {
        NOTHING.write_batch(asker, model, writes)
    }

    fn aggregate<'a>(&'a self, asker: Asker<'a>, model: &'a str, pipeline: &'a str) -> Served<'a, String> {
        NOTHING.aggregate(asker, model, pipeline)
    }

    fn measure(&self, _: &str, _: Measurement<'_>) {
        self.measured.fetch_add(1, Ordering::Relaxed);
    }

    fn secret(&self, _: Asker<'_>, _: &str) -> Result<SecretText, Refusal> {
        Ok(SecretText::new(SECRET))
    }

    fn stream<'a>(
        &'a self,
        _: Asker<'a>,
        _: http::Request<StreamedBody>,
        _: Waits,
    ) -> Sent<'a, http::Response<StreamedBody>> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let error = OutgoingError::Unreachable("nobody is there".to_owned());
        Box::pin(std::future::ready(Err(error)))
    }
}
