//! Uploads the files of a run: asks for a signed URL, puts the bytes there, and reports the upload.
//!
//! A signed URL is not stored, and the key is not sent there. Uploading a file twice has no effect, so that
//! each step may be retried.

use serde_json::{Value, json};

use crate::http::body::FileBody;
use crate::http::{Answer, Body, Call, Method, without_query};
use crate::wandb::host::host;
use crate::wandb::{Error, Operation, RunIdentity, Wandb};

pub(crate) const UPLOAD: &str = "upload of a file";

const CREATE: Operation = Operation {
    name: "CreateRunFiles",
    text: "mutation CreateRunFiles($input: CreateRunFilesInput!) { createRunFiles(input: $input) {
           uploadHeaders files { name uploadUrl } } }",
};

const MARK: Operation = Operation {
    name: "MarkRunFilesUploaded",
    text: "mutation MarkRunFilesUploaded($input: CreateRunFilesInput!) {
           markRunFilesUploaded(input: $input) { success } }",
};

/// Uploads `body` as the file `name` of `run`. Fails when W&B or its storage refuses, or cannot be asked; it
/// may be tried again unless that is permanent.
pub fn upload(wandb: &Wandb, run: &RunIdentity, name: &str, body: &FileBody) -> Result<(), Error> {
    let input = json!({ "input": {
        "entityName": run.entity, "projectName": run.project, "runName": run.name, "files": [name],
    } });
    let data = wandb.graphql(CREATE, &input)?;
    let url = data.pointer("/createRunFiles/files/0/uploadUrl").and_then(Value::as_str);
    let url = url.ok_or_else(|| wandb.unreadable(CREATE.name, "it has no `uploadUrl`"))?;
    let base = &wandb.settings.base;
    // A server of one's own may be its own storage.
    let url = if url.starts_with('/') { format!("{base}{url}") } else { url.to_owned() };
    if !may_send_to(base, &url) {
        return Err(wandb.unreadable(CREATE.name, "its `uploadUrl` is without TLS"));
    }
    let headers = data.pointer("/createRunFiles/uploadHeaders").and_then(Value::as_array);
    let headers = headers.into_iter().flatten().filter_map(Value::as_str).filter_map(header).collect();
    let call = Call { method: Method::Put, url, key: None, headers, body: Body::File(body, &|_| ()) };
    let answer = wandb.client.send(&call)?;
    if !answer.is_success() {
        // A storage may repeat the signed URL in its error: its text is not shown.
        let answer = Answer { body: Vec::new(), ..answer };
        return Err(wandb.refused_by(host(&call.url), UPLOAD, &answer));
    }
    if answer.is_page() {
        return Err(Error::Page { what: UPLOAD, url: without_query(&call.url).to_owned() });
    }
    wandb.graphql(MARK, &input).map(drop)
}

/// `Name:Value` as a header.
fn header(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    Some((name.trim().to_owned(), value.trim().to_owned())).filter(|(name, _)| !name.is_empty())
}

/// Whether the API at `base` may send files to `url`: with TLS, or on the machine that the API is on.
fn may_send_to(base: &str, url: &str) -> bool {
    let name = |url: &str| host(url).rsplit_once(':').map_or(host(url), |(name, _)| name).to_owned();
    let is_here = base.starts_with("http://") && url.starts_with("http://") && name(base) == name(url);
    !host(url).contains('@') && (url.starts_with("https://") || is_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_nowhere_without_tls_but_to_the_machine_of_the_api() {
        let hosted = "https://api.forge.coreweave.com";
        assert!(may_send_to(hosted, "https://storage.example/x?signature=1"));
        assert!(!may_send_to(hosted, "http://storage.example/x?signature=1"));
        assert!(!may_send_to(hosted, "https://user:password@storage.example/x"));
        assert!(!may_send_to(hosted, "http://api.forge.coreweave.com/x"));
        assert!(may_send_to("http://127.0.0.1:1", "http://127.0.0.1:2/x?signature=1"));
        assert!(!may_send_to("http://127.0.0.1:1", "http://storage.example/x"));
    }

    #[test]
    fn headers_are_read_as_the_service_writes_them() {
        assert_eq!(header("x-ms-blob-type:BlockBlob"), Some(("x-ms-blob-type".into(), "BlockBlob".into())));
        assert_eq!(header("a: b:c"), Some(("a".into(), "b:c".into())));
        assert_eq!((header("nothing"), header(":x")), (None, None));
    }
}
