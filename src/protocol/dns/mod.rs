//! What a network's DNS says: the names of its guests, forward and reverse, and which other questions may be asked of
//! an upstream resolver. Pure: a [`Zone`] is data, [`Zone::answer`] a function of it and the question.
//!
//! A network sees its own zone and no other network's: what another network calls itself is no business of this one,
//! and must not hide a public domain of the same name from it.

mod answer;
mod message;
mod reverse;
mod special;
mod zone;

pub use answer::{Answer, NEGATIVE_TTL, Question, RECORD_TTL};
pub use message::question;
pub use zone::{MAX_ADDRESSES, MAX_NAMES, NameSource, Zone, ZoneError};
