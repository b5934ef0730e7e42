//! The bytes of a trained model: a small archive of the real form, whole or from any byte on.
//!
//! The weights are noise; the archive, its configuration and its index are what a loader expects to find.

use std::io;

use serde_json::json;

use crate::course;
use crate::faults::chance;
use crate::jobs::job;
use crate::reply::{Handled, Reply};
use crate::request::{Now, Request};
use crate::state::{Job, State};

/// Bytes of the one tensor in the archive: enough for a download to be cut in the middle.
const TENSOR_BYTES: u32 = 192 << 10;

pub fn download(state: &State, request: &Request, now: Now) -> Handled {
    let id = request.query("ft_id").ok_or_else(|| Reply::missing("ft_id"))?;
    let job = job(state, id)?;
    let saved = course::checkpoints(&job.plan, job.seconds(now));
    let step = request.query("checkpoint_step").filter(|step| *step != "0").map(str::parse::<u64>);
    let step = step.transpose().map_err(|_| Reply::field("checkpoint_step", "no step"))?;
    let default = if job.order.is_lora() { "merged" } else { "model_output_path" };
    let kind = request.query("checkpoint").unwrap_or(default);
    let refused = |message: String| Err(Reply::field("checkpoint", message));
    match (kind, job.order.is_lora()) {
        ("merged", true) if job.order.gives_adapter_only() => {
            let model = job.order.model.name;
            return refused(format!("LoRA is not merged into `{model}`: there is only an adapter"));
        }
        ("merged" | "adapter", true) | ("model_output_path", false) => {}
        _ => return refused(format!("checkpoint `{kind}` does not go with this training type")),
    }
    let is_wanted = |saved: &&course::Checkpoint| step.map_or(saved.is_final, |step| saved.step == step);
    let missing = || Reply::error(404, format!("job {id} has no such checkpoint to download yet"));
    let checkpoint = saved.iter().find(is_wanted).ok_or_else(missing)?;
    let archive =
        archive(job, kind, checkpoint.step).map_err(|error| Reply::error(500, error.to_string()))?;
    let name = format!("attachment; filename=\"{id}-{}.tar.zst\"", checkpoint.step);
    let reply = ranged(&archive, request.head.header("range"), "application/zstd");
    Ok(reply.with("Content-Disposition", name))
}

/// What the service's adapters name as their base: a `-Reference` model is a copy that only the service has.
fn own_copy(model: &str) -> String {
    match model.rsplit('/').next() {
        Some(name) if name.ends_with("-Reference") => format!("togethercomputer/{name}__TOG__FT"),
        _ => model.to_owned(),
    }
}

fn archive(job: &Job, kind: &str, step: u64) -> io::Result<Vec<u8>> {
    let configuration = json!({
        "base_model_name_or_path": own_copy(job.order.model.name),
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": job.order.training_type.get("lora_r"),
        "lora_alpha": job.order.training_type.get("lora_alpha"),
        "rehearsal": "made up: nothing was trained",
        "step": step,
    });
    let header = json!({
        "weight": { "dtype": "U8", "shape": [TENSOR_BYTES], "data_offsets": [0, TENSOR_BYTES] },
    })
    .to_string();
    let mut tensors = (header.len() as u64).to_le_bytes().to_vec();
    tensors.extend_from_slice(header.as_bytes());
    let byte = |index: u32| (chance(&[job.plan.seed, step, u64::from(index)]) * 256.0) as u8;
    tensors.extend((0..TENSOR_BYTES).map(byte));
    let (weights, name) = match kind {
        "adapter" => ("adapter_model.safetensors", "adapter_config.json"),
        _ => ("model.safetensors", "config.json"),
    };
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in [(name, configuration.to_string().as_bytes()), (weights, &tensors[..])] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, bytes)?;
    }
    zstd::encode_all(&tar.into_inner()?[..], 1)
}

/// All of `bytes`, or the part that a `Range` header asks for. What is not one range of bytes is ignored.
fn ranged(bytes: &[u8], range: Option<&str>, content_type: &str) -> Reply {
    let size = bytes.len();
    let reply = match range.and_then(|range| parse_range(range, size)) {
        None => Reply::bytes(200, content_type, bytes.to_vec()),
        Some((first, last)) if first <= last && first < size => {
            let last = last.min(size - 1);
            Reply::bytes(206, content_type, bytes[first..=last].to_vec())
                .with("Content-Range", format!("bytes {first}-{last}/{size}"))
        }
        Some(_) => Reply::error(416, "the range begins behind the end")
            .with("Content-Range", format!("bytes */{size}")),
    };
    reply.with("Accept-Ranges", "bytes")
}

fn parse_range(range: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", length) => Some((size.saturating_sub(length.parse().ok()?), size - 1)),
        (first, "") => Some((first.parse().ok()?, usize::MAX)),
        (first, last) => {
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((first, last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Content;

    #[track_caller]
    fn check(range: Option<&str>, status: u16, body: &str, content_range: Option<&str>) {
        let reply = ranged(b"abcdef", range, "application/zstd");
        let known = reply.headers.iter().find(|(name, _)| name == "Content-Range");
        assert_eq!(reply.status, status, "{range:?}");
        assert_eq!(known.map(|(_, value)| value.as_str()), content_range, "{range:?}");
        if status != 416 {
            assert_eq!(reply.content, Content::Whole(body.as_bytes().to_vec()), "{range:?}");
        }
    }

    #[test]
    fn a_range_is_answered_in_part() {
        check(None, 200, "abcdef", None);
        check(Some("bytes=0-1"), 206, "ab", Some("bytes 0-1/6"));
        check(Some("bytes=2-"), 206, "cdef", Some("bytes 2-5/6"));
        check(Some("bytes=4-99"), 206, "ef", Some("bytes 4-5/6"));
        check(Some("bytes=-2"), 206, "ef", Some("bytes 4-5/6"));
        check(Some("bytes=6-"), 416, "", Some("bytes */6"));
        check(Some("bytes=-0"), 416, "", Some("bytes */6"));
        check(Some("bytes=3-1"), 200, "abcdef", None);
        check(Some("lines=1-2"), 200, "abcdef", None);
        check(Some("bytes=0-1,3-4"), 200, "abcdef", None);
    }
}
