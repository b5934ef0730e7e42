//! The bytes of a trained model: a small archive of the real form, whole or from any byte on.
//!
//! Separate because ranges are a protocol of their own. The weights are noise; the archive, its
//! configuration and its index are what a loader expects to find.

use std::io;

use serde_json::json;

use crate::course;
use crate::faults::chance;
use crate::jobs::job;
use crate::reply::Reply;
use crate::state::{Job, Now, Request, State};

/// Bytes of the one tensor in the archive: enough for a download to be cut in the middle.
const TENSOR_BYTES: u32 = 192 << 10;

/// `GET /v1/finetune/download`.
///
/// # Errors
/// When there is no such job, no such checkpoint, or nothing to download yet.
pub fn download(state: &State, request: &Request, now: Now) -> Result<Reply, Reply> {
    let id = request.query("ft_id").ok_or_else(|| Reply::field("ft_id", "`ft_id` is missing"))?;
    let job = job(state, id)?;
    let saved = course::checkpoints(&job.plan, now.seconds_since(job.created.elapsed));
    let step = match request.query("checkpoint_step").filter(|step| *step != "0") {
        Some(step) => Some(step.parse::<u64>().map_err(|_| Reply::field("checkpoint_step", "no step"))?),
        None => None,
    };
    let default = if job.order.is_lora() { "merged" } else { "model_output_path" };
    let kind = request.query("checkpoint").unwrap_or(default);
    match (kind, job.order.is_lora()) {
        ("merged", true) if job.order.gives_adapter_only() => {
            let message =
                format!("LoRA is not merged into `{}`: there is only an adapter", job.order.model.name);
            return Err(Reply::field("checkpoint", message));
        }
        ("merged" | "adapter", true) | ("model_output_path", false) => {}
        _ => {
            let message = format!("checkpoint `{kind}` does not go with this training type");
            return Err(Reply::field("checkpoint", message));
        }
    }
    let is_wanted = |saved: &&course::Checkpoint| match step {
        Some(step) => saved.step == step,
        None => saved.is_final,
    };
    let Some(checkpoint) = saved.iter().find(is_wanted) else {
        return Err(Reply::error(404, format!("job {id} has no such checkpoint to download yet")));
    };
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

/// All of `bytes`, or the part that a `Range` header asks for.
pub fn ranged(bytes: &[u8], range: Option<&str>, content_type: &str) -> Reply {
    let size = bytes.len();
    let part = range.map(|range| parse_range(range, size));
    let reply = match part {
        None | Some(Range::Ignored) => Reply::bytes(200, content_type, bytes.to_vec()),
        Some(Range::Part(first, last)) => Reply::bytes(206, content_type, bytes[first..=last].to_vec())
            .with("Content-Range", format!("bytes {first}-{last}/{size}")),
        Some(Range::Unsatisfiable) => Reply::error(416, "the range begins behind the end")
            .with("Content-Range", format!("bytes */{size}")),
    };
    reply.with("Accept-Ranges", "bytes")
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// First and last byte.
    Part(usize, usize),
    /// Not one range of bytes: answered as if it were not there.
    Ignored,
    Unsatisfiable,
}

fn parse_range(range: &str, size: usize) -> Range {
    let bounds = range.strip_prefix("bytes=").and_then(|bounds| bounds.split_once('-'));
    let Some((first, last)) = bounds else { return Range::Ignored };
    match (first.trim().parse::<usize>(), last.trim()) {
        (Ok(first), _) if first >= size => Range::Unsatisfiable,
        (Ok(first), "") => Range::Part(first, size - 1),
        (Ok(first), last) => match last.parse::<usize>() {
            Ok(last) if last >= first => Range::Part(first, last.min(size - 1)),
            _ => Range::Ignored,
        },
        (Err(_), last) if first.trim().is_empty() => match last.parse::<usize>() {
            Ok(0) => Range::Unsatisfiable,
            Ok(length) if size > 0 => Range::Part(size.saturating_sub(length), size - 1),
            Ok(_) => Range::Unsatisfiable,
            Err(_) => Range::Ignored,
        },
        _ => Range::Ignored,
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
