//! Buckets as places that hold objects: the `Storage` of the engine over an object store.
//!
//! `s3://` is tested. `gs://` and `az://` are what the same library gives, untested here.
//!
//! - [`Buckets`] makes the places at addresses, and asks whether they are there.
//! - `address`: which scheme, bucket and prefix; `credentials`: who we are, there.
//! - `client`: how a bucket is asked: by the library over `connector`'s HTTP, and by `s3` itself where the library does not
//!   ask as we need it.
//! - `bucket`: the place itself; `list`, `read`, `upload`: what it does with many requests at once, on `runner`'s
//!   threads.
//!
//! Nobody else here knows async: each place has two threads for it, on which nothing is computed but signatures, and
//! every call blocks until its answer, or until somebody asks the program to stop. No environment is read: see
//! [`Settings`].

mod address;
mod bucket;
mod client;
mod connector;
mod credentials;
mod failure;
mod list;
mod read;
mod runner;
mod s3;
mod settings;
mod upload;

pub use bucket::Buckets;
pub use settings::Settings;
