//! Redirects of uploads and downloads, followed by hand.
//!
//! Each hop is a decision: TLS only, at most five, the whole body again, and without the key once the origin is
//! another.

use crate::http::{Answer, Body, Call, Method, without_query};
use crate::together::base::resolve;
use crate::together::error::Error;
use crate::together::{Together, Tries};

const MOST_HOPS: usize = 5;

/// A place where the API lets us store something: its URL is a secret.
pub struct Place {
    pub url: String,
    /// Headers that belong to the signature.
    pub headers: Vec<(String, String)>,
}

/// Asks `url` and wherever its answers lead, through `attempt`; gives back the first answer that leads nowhere,
/// and its URL. Fails as `attempt`, and when an answer leads on too often, nowhere, or where we may not go.
pub fn follow(
    together: &Together,
    (method, url): (Method, &str),
    attempt: &mut dyn FnMut(&str) -> Result<Answer, Error>,
) -> Result<(Answer, String), Error> {
    let mut url = url.to_owned();
    let mut hops = 0;
    loop {
        let answer = attempt(&url)?;
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            return Ok((answer, url));
        }
        let asked = together.asked(method, &url);
        if hops == MOST_HOPS {
            return Err(asked.unreadable(format!("it leads on for the {}th time", hops + 1), &answer));
        }
        hops += 1;
        let location = answer.header("location").and_then(|location| resolve(&url, location));
        let location = location.ok_or_else(|| asked.unreadable("it leads nowhere", &answer))?;
        if !together.base.may_send_to(&location) {
            let place = without_query(&location);
            return Err(asked.unreadable(format!("it leads to {place}, where nothing may be sent"), &answer));
        }
        url = location;
    }
}

/// Puts `body` at `place` and wherever that leads, the whole of it at each hop. Without the key and with no
/// header but those of the place. Fails when there is no answer, or a redirect leads where we may not go.
pub fn put(
    together: &Together,
    place: &Place,
    body: Body<'_>,
    tries: Tries,
) -> Result<(Answer, String), Error> {
    let mut attempt = |url: &str| {
        let headers = place.headers.clone();
        let call = Call { method: Method::Put, url: url.to_owned(), key: None, headers, body };
        let client = &together.client;
        Ok(if tries == Tries::Many { client.repeat(&call) } else { client.send(&call) }?)
    };
    follow(together, (Method::Put, &place.url), &mut attempt)
}
