//! Divides a corpus into parts that are converted by themselves, and keeps all that decides what they become.
//!
//! Everything that holds records is sorted by its key, in bounded memory, and cut into parts of consecutive inputs. A
//! container is a part of its own, since it is read from its beginning; a large file of plain lines is several. What a
//! plan says never changes: the same order again finds it, another one is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::address::address;
use crate::error::Error;
use crate::json::KeyText;
use crate::output::manifest::Hex;
use crate::output::publish::{Durability, STAGING};
use crate::parts::fetch::{container, failed, look};
use crate::parts::merge::Merge;
use crate::parts::settings::{Means, Settings, escape, escape_path, unescape, unescape_path};
use crate::parts::sort::{RunStream, Sorter};
use crate::parts::stored::StoredOutput;
use crate::parts::work::{DigestObject, PLAN, PUBLISHED, Work, plan_start};
use crate::prepare::{Options, check_directories, check_output, mix_prefixes};
use crate::source::index::{Extent, index_lines};
use crate::source::input::{Input, LineRange, Pin, Root, Seen, What};
use crate::source::keys::MAX_KEY_BYTES;
use crate::source::list;
use crate::source::names::{NameLog, write_names};
use crate::source::section::Section;
use crate::source::walk::{self, Directory, Found, container_prefix, walk};
use crate::source::{Compression, Containers, Source, SourceKind, prefixes};
use crate::storage::{Object, Stores};
use crate::watch::Watch;

/// The schema of plans that this version makes and reads.
const SCHEMA: &str = "ctxtune.plan/1";

const TOOL: &str = concat!("ctxtune ", env!("CARGO_PKG_VERSION"));

/// The least size of a part unless somebody says otherwise: less is not worth a process.
pub const MIN_PART_BYTES: u64 = 256 << 20;

/// Parts of a large corpus unless somebody says otherwise.
const PARTS: u64 = 2_000;

/// What to plan.
#[derive(Debug, Clone)]
pub struct PlanOrder<'o> {
    /// What to prepare, and how.
    pub options: &'o Options,
    /// Bytes of inputs a part; `None`: at least [`MIN_PART_BYTES`], and at most about 2,000 parts.
    pub part_bytes: Option<u64>,
    /// Whether records that are files of their own must not change either.
    pub pin: bool,
    /// Where temporary files go; `None` for the system's place for them.
    pub scratch: Option<&'o Path>,
    /// What opens buckets.
    pub stores: &'o dyn Stores,
    /// The order in the words in which it was given, see [`Plan::is_asked`].
    pub asked: &'o str,
}

/// A plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The SHA-256 of [`Plan::body`] as it is written.
    pub id: String,
    /// What it says.
    pub body: Body,
    /// A row for each part.
    index: Vec<u8>,
}

/// What a plan says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    schema: String,
    tool: String,
    /// The SHA-256 of what was ordered.
    order: String,
    /// The SHA-256 of the words in which it was ordered.
    asked: String,
    /// The options.
    pub settings: Settings,
    /// Where the result goes.
    output: String,
    /// The directories that records lie below, and what stands before the keys of theirs.
    roots: Vec<PlanRoot>,
    /// Parts of the corpus and of what is mixed in.
    pub parts: u64,
    /// Files and containers.
    pub inputs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of inputs a part, more or less.
    pub part_bytes: u64,
    /// What is named as records are and is no regular file.
    pub not_regular: u64,
    /// What is not read, by kind.
    pub not_read_by_kind: BTreeMap<String, u64>,
    listing: PlanObject,
    index: PlanObject,
    not_read: PlanObject,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanRoot {
    path: String,
    prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanObject {
    name: String,
    bytes: u64,
    sha256: String,
}

/// The file of a plan.
#[derive(Deserialize)]
struct PlanFile<'p> {
    plan: String,
    #[serde(borrow)]
    body: &'p RawValue,
}

/// What a plan says of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartPlan {
    /// Where its inputs begin in the listing, and how many bytes they take there.
    start: u64,
    length: u64,
    /// How many there are.
    pub inputs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// 0 for the corpus; else it is what is mixed in, of which file, from 1.
    pub mix: u64,
    sha256: [u8; 32],
}

const INDEX_ROW_BYTES: usize = 72;

impl PartPlan {
    fn write(&self, out: &mut Vec<u8>) {
        for number in [self.start, self.length, self.inputs, self.bytes, self.mix] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.sha256);
    }

    fn read(row: &[u8]) -> PartPlan {
        let number = |at: usize| u64::from_le_bytes(row[at..at + 8].try_into().expect("eight bytes"));
        let [start, length, inputs, bytes, mix] = [0, 8, 16, 24, 32].map(number);
        PartPlan { start, length, inputs, bytes, mix, sha256: row[40..72].try_into().expect("32 bytes") }
    }
}

impl Plan {
    /// The plan in `work`; `None` where its result is published.
    ///
    /// # Errors
    /// When there is none, or what lies there was made by another version or changed since.
    pub fn load(work: &Work) -> Result<Option<Plan>, Error> {
        let plan = Plan::find(work);
        // What is published is being cleared, or was not cleared altogether.
        match Plan::published(work)? {
            Some(_) => Ok(None),
            None => plan?.ok_or_else(|| Error::NoPlan { work: work.shown() }).map(Some),
        }
    }

    /// The plan whose result is published, as long as `work` is not cleared: without its parts.
    ///
    /// # Errors
    /// When it cannot be read, or was made by another version.
    pub fn published(work: &Work) -> Result<Option<Plan>, Error> {
        Plan::read(work, PUBLISHED)
    }

    fn find(work: &Work) -> Result<Option<Plan>, Error> {
        let Some(plan) = Plan::read(work, PLAN)? else { return Ok(None) };
        match plan.object(work, &plan.body.index) {
            Ok(index) => Ok(Some(Plan { index, ..plan })),
            // All of it was cleared meanwhile.
            Err(Error::Altered { .. }) if work.get(PLAN)?.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(work: &Work, name: &str) -> Result<Option<Plan>, Error> {
        let Some(bytes) = work.get(name)? else { return Ok(None) };
        let altered = |reason: &str| altered(work, name, reason);
        let text = str::from_utf8(&bytes).map_err(|_| altered("it is no text"))?;
        let file: PlanFile<'_> = serde_json::from_str(text).map_err(|error| altered(&error.to_string()))?;
        if file.plan != Hex(&Sha256::digest(file.body.get())).to_string() || plan_text(file.body) != text {
            return Err(altered("it is not as it was written"));
        }
        let body: Body =
            serde_json::from_str(file.body.get()).map_err(|error| altered(&error.to_string()))?;
        if body.schema != SCHEMA || body.tool != TOOL {
            let reason = format!("it was made by {} ({}), and this is {TOOL}", body.tool, body.schema);
            return Err(Error::OtherPlan { work: work.shown(), reason });
        }
        Ok(Some(Plan { id: file.plan, body, index: Vec::new() }))
    }

    /// The bytes of a small object of the plan.
    fn object(&self, work: &Work, object: &PlanObject) -> Result<Vec<u8>, Error> {
        let bytes = work.get(&object.name)?.unwrap_or_default();
        match Hex(&Sha256::digest(&bytes)).to_string() == object.sha256 {
            true => Ok(bytes),
            false => Err(altered(work, &object.name, "it is not as it was written")),
        }
    }

    /// The plan as the mark of its publication, which is put for it in `work`.
    ///
    /// # Errors
    /// The store's.
    pub fn mark_published(&self, work: &Work, is_durable: bool) -> Result<(), Error> {
        let body = serde_json::to_string(&self.body).expect("strings and numbers only");
        let text = plan_text(&RawValue::from_string(body).expect("it was written as JSON"));
        work.storage.put_new(PUBLISHED, text.as_bytes(), is_durable).map_err(work.failed(PUBLISHED)).map(drop)
    }

    /// Whether it was ordered in the words `asked`: then it is the plan of that order also where the files are gone that
    /// the order names.
    pub fn is_asked(&self, asked: &str) -> bool {
        self.body.asked == Hex(&Sha256::digest(asked)).to_string()
    }

    /// Where the result goes.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn output(&self, work: &Work) -> Result<PathBuf, Error> {
        unescape_path(&self.body.output).ok_or_else(|| altered(work, PLAN, "its output is unknown"))
    }

    /// What it says of `part`, which is less than the number of parts.
    pub fn part(&self, part: u64) -> PartPlan {
        PartPlan::read(&self.index[part as usize * INDEX_ROW_BYTES..][..INDEX_ROW_BYTES])
    }

    /// The digest of what was ordered.
    pub fn order(&self) -> &str {
        &self.body.order
    }

    /// The options, for a result where the plan says.
    ///
    /// # Errors
    /// When they are those of another version.
    pub fn options(&self, work: &Work, means: &Means) -> Result<Options, Error> {
        let options = self.body.settings.options(&self.output(work)?, means);
        options.ok_or_else(|| altered(work, PLAN, "its options are unknown"))
    }

    /// The directories that records lie below.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn roots(&self, work: &Work) -> Result<Vec<Root>, Error> {
        let root = |root: &PlanRoot| {
            Some(Root { path: unescape_path(&root.path)?, prefix: unescape(&root.prefix)?.len() })
        };
        let roots = self.body.roots.iter().map(root).collect::<Option<_>>();
        roots.ok_or_else(|| altered(work, PLAN, "its roots are unknown"))
    }

    /// The inputs of `part`.
    ///
    /// # Errors
    /// When they cannot be read, or are not as they were written.
    pub fn inputs(&self, work: &Work, part: &PartPlan) -> Result<Vec<Input>, Error> {
        let name = &self.body.listing.name;
        let mut bytes = vec![0; part.length as usize];
        let read = work.storage.read_at(name, part.start, &mut bytes);
        let is_short = |error: &io::Error| {
            [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof].contains(&error.kind())
        };
        if read.as_ref().is_err_and(is_short) || read.is_ok() && Sha256::digest(&bytes)[..] != part.sha256 {
            return Err(altered(work, name, "it is not as it was written"));
        }
        read.map_err(work.failed(name))?;
        let mut rest = &bytes[..];
        let inputs: Vec<Input> = std::iter::from_fn(|| Input::read(&mut rest)).collect();
        Ok(inputs)
    }

    /// What is not read, by name.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn not_read(&self, work: &Work, log: &mut NameLog) -> Result<(), Error> {
        let names = self.object(work, &self.body.not_read)?;
        log.push_all(&names).map_err(Error::NameLog)
    }
}

fn altered(work: &Work, name: &str, reason: &str) -> Error {
    Error::Altered { object: work.storage.shown(name), reason: reason.to_owned() }
}

fn plan_text(body: &RawValue) -> String {
    let plan = Hex(&Sha256::digest(body.get())).to_string();
    format!("{}\"body\":{}}}\n", plan_start(&plan), body.get())
}

/// The plan in `work` that was ordered in the words `asked`, published or not.
///
/// # Errors
/// When what lies there cannot be read.
pub fn asked_plan(work: &Work, asked: &str) -> Result<Option<Plan>, Error> {
    let plan = Plan::find(work);
    let plan = Plan::published(work)?.map_or(plan, |published| Ok(Some(published)))?;
    Ok(plan.filter(|plan| plan.is_asked(asked)))
}

/// Plans `order` in `work`, or finds that it is planned there already. `None` where its result is published meanwhile.
///
/// # Errors
/// When a source cannot be listed or read, nothing is found, something cannot be divided, or another plan is there.
pub fn plan(order: &PlanOrder<'_>, work: &Work, watch: &dyn Watch) -> Result<Option<Plan>, Error> {
    let digest = order.digest()?;
    let found = |plan: Plan| match order.is_planned(&plan, &digest) {
        true => Ok(Some(plan)),
        false => {
            let reason = "it is of other sources or options".to_owned();
            Err(Error::OtherPlan { work: work.shown(), reason })
        }
    };
    let plan = Plan::find(work);
    if Plan::published(work)?.is_some() {
        return Ok(None);
    }
    if let Some(plan) = plan? {
        return found(plan);
    }
    check_directories(order.options)?;
    order.check_sources()?;
    order.check_places(&work.dir().map_or_else(|| PathBuf::from(work.shown()), Path::to_owned))?;
    match address(&order.options.output_dir) {
        Some(output) => drop(StoredOutput::open(output, &digest, order.stores)?),
        // What a killed publication left is no one else's.
        None if order.options.output_dir.join(STAGING).exists() => {}
        None => check_output(order.options)?,
    }
    work.create()?;
    let made = order.plan(digest.clone(), work, watch);
    if made.is_err() {
        work.remove_directories();
    }
    made?;
    // Another one may have been quicker, and seen other files.
    Plan::load(work)?.map_or(Ok(None), found)
}

/// Files and containers while they are found.
struct Finding<'w> {
    sorter: Sorter,
    not_read: NameLog,
    not_regular: u64,
    inputs: u64,
    bytes: u64,
    /// Those that lie in buckets.
    stored: Totals,
    pin: bool,
    watch: &'w dyn Watch,
    stores: &'w dyn Stores,
}

/// What a plan reads of buckets.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Totals {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests that it takes to read them.
    pub requests: u64,
}

impl Totals {
    fn add(&mut self, bytes: u64, requests: u64) {
        self.objects += 1;
        self.bytes += bytes;
        self.requests += requests;
    }
}

/// What lies at a path, as a plan keeps it.
struct Looked {
    pin: Option<Pin>,
    object: Option<Seen>,
    bytes: u64,
}

impl Finding<'_> {
    fn add(&mut self, root: u16, path: &Path, key: &[u8], found: Found) -> Result<(), Error> {
        let what = match found {
            Found::Record => What::Record,
            Found::Container(kind) => return self.add_container(&container_prefix(key), kind, path),
            Found::NotRead(kind, is_named_as_record) => {
                self.not_regular += u64::from(is_named_as_record);
                self.not_read.push(kind, key).map_err(Error::NameLog)?;
                return self.watch.check_stop();
            }
        };
        let Looked { pin, object, bytes } = self.look(path)?;
        let pin = pin.filter(|_| self.pin);
        self.push(Input { root, key: key.to_owned(), pin, what, object }, bytes)
    }

    fn add_container(&mut self, prefix: &[u8], kind: SourceKind, path: &Path) -> Result<(), Error> {
        let Looked { pin, object, bytes } = self.look(path)?;
        let what = What::Container(kind, absolute(path)?);
        self.push(Input { root: 0, key: prefix.to_owned(), pin, what, object }, bytes)
    }

    fn look(&mut self, path: &Path) -> Result<Looked, Error> {
        let Some(address) = address(path) else {
            let seen = pin(path)?;
            return Ok(Looked { pin: Some(seen), object: None, bytes: seen.bytes });
        };
        let (seen, requests) = look(address, self.stores)?;
        self.stored.add(seen.bytes, requests);
        Ok(Looked { pin: None, bytes: seen.bytes, object: Some(seen) })
    }

    /// Adds all that lies below `place`.
    fn add_place(
        &mut self,
        root: u16,
        place: &str,
        prefix: &[u8],
        containers: Containers,
        output: &Path,
    ) -> Result<(), Error> {
        let storage = self.stores.open(place).map_err(|error| failed(place, error))?;
        let all = storage.shown("");
        let skip = address(output)
            .and_then(|output| output.strip_prefix(&all))
            .map(|skip| skip.trim_end_matches('/'));
        let (mut passed, mut failure) = (BTreeSet::new(), None);
        let mut add = |object: Object| -> Result<(), Error> {
            let (end, found) = walk::object(&object.name, containers, skip);
            let name = &object.name[..end];
            // What is not entered is named once, not for everything below it.
            if end < object.name.len() && !passed.insert(name.to_owned()) {
                return Ok(());
            }
            let key = [prefix, name.as_bytes()].concat();
            let (key, what) = match found {
                Found::Record => (key, What::Record),
                Found::Container(kind) => {
                    let path = PathBuf::from(storage.shown(name));
                    (container_prefix(&key), What::Container(kind, path))
                }
                found => return self.add(root, Path::new(name), &key, found),
            };
            self.stored.add(object.bytes, storage.requests(&object));
            let seen = Seen { bytes: object.bytes, tag: object.tag };
            self.push(Input { root, key, pin: None, what, object: Some(seen) }, object.bytes)
        };
        let listed = storage.list_unordered(&mut |object| {
            add(object).map_err(|error| {
                failure = Some(error);
                std::io::ErrorKind::Other.into()
            })
        });
        match failure {
            Some(error) => Err(error),
            None => listed.map_err(|error| match failed(place, error) {
                Error::Read { path, source } => Error::List { path, source },
                other => other,
            }),
        }
    }

    fn push(&mut self, mut input: Input, bytes: u64) -> Result<(), Error> {
        if input.key.len() > MAX_KEY_BYTES {
            let path = PathBuf::from(KeyText(&input.key[..100]).to_json());
            return Err(Error::Read { path, source: std::io::ErrorKind::InvalidFilename.into() });
        }
        let key = std::mem::take(&mut input.key);
        let mut value = bytes.to_le_bytes().to_vec();
        input.write(&mut value);
        self.sorter.push(&key, &value)?;
        self.inputs += 1;
        self.bytes += bytes;
        if self.inputs.is_multiple_of(4096) {
            self.watch.listed(self.inputs);
            self.watch.check_stop()?;
        }
        Ok(())
    }
}

fn pin(path: &Path) -> Result<Pin, Error> {
    let seen = std::fs::metadata(path).and_then(|seen| Pin::of(&seen));
    seen.map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    crate::address::absolute(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

impl PlanOrder<'_> {
    /// Whether `plan` is that of this order.
    ///
    /// # Errors
    /// When a path cannot be made absolute.
    pub fn is_of(&self, plan: &Plan) -> Result<bool, Error> {
        Ok(self.is_planned(plan, &self.digest()?))
    }

    /// Whether `plan` is that of this order, whose digest this is. Of a source that is gone nobody can say what it was, so
    /// that the words count in which it was ordered.
    fn is_planned(&self, plan: &Plan, digest: &str) -> bool {
        let is_gone =
            |source: &Source| address(&source.path).is_none() && source.path.symlink_metadata().is_err();
        plan.body.order == digest || plan.is_asked(self.asked) && self.options.sources.iter().any(is_gone)
    }

    /// Makes the plan, whose directories are there.
    fn plan(&self, digest: String, work: &Work, watch: &dyn Watch) -> Result<(), Error> {
        if let Some(dir) = work.dir().filter(|_| address(&self.options.output_dir).is_none()) {
            check_file_system(dir, &self.options.output_dir)?;
        }
        let is_durable = self.options.durability == Durability::Sync;
        let body = self.body(digest, work, watch)?;
        let text = serde_json::to_string(&body).expect("strings and numbers only");
        let raw = RawValue::from_string(text).expect("it was written as JSON");
        let put = work.storage.put_new(PLAN, plan_text(&raw).as_bytes(), is_durable);
        put.map_err(work.failed(PLAN)).map(drop)
    }

    /// Fails where a source can be read once only: a part may be read again.
    fn check_sources(&self) -> Result<(), Error> {
        let is_stream = |source: &&Source| {
            let is_container = matches!(source.kind, SourceKind::Lines(_) | SourceKind::Tar(_));
            source.is_stdin()
                || is_container
                    && source.address().is_none()
                    && std::fs::metadata(&source.path).is_ok_and(|seen| !seen.is_file())
        };
        match self.options.sources.iter().find(is_stream) {
            Some(source) => Err(Error::Indivisible { path: source.path.clone() }),
            None => Ok(()),
        }
    }

    /// Fails where the working directory, the output and the sources lie within each other.
    fn check_places(&self, work: &Path) -> Result<(), Error> {
        let place = real(work);
        let output = real(&self.options.output_dir);
        let misplaced = |of: &Path| Error::Misplaced { work: work.to_owned(), of: of.to_owned() };
        if place.starts_with(&output) || output.starts_with(&place) {
            return Err(misplaced(&self.options.output_dir));
        }
        let directories =
            self.options.sources.iter().filter(|source| matches!(source.kind, SourceKind::Directory(_)));
        for source in directories {
            if place.starts_with(real(&source.path)) {
                return Err(misplaced(&source.path));
            }
        }
        Ok(())
    }

    /// The SHA-256 of all that is ordered, but for what lies in the sources.
    fn digest(&self) -> Result<String, Error> {
        let mut digest = Sha256::new();
        let settings = Settings::of(self.options, &mix_prefixes(&self.options.mix));
        digest.update(serde_json::to_string(&settings).expect("strings and numbers only"));
        let mixed = self.options.mix.iter().map(|mix| &mix.source);
        let paths = self.options.sources.iter().chain(mixed);
        for source in paths {
            digest.update(escape_path(&absolute(&source.path)?));
            digest.update(format!(" {:?}\n", source.kind));
        }
        digest.update(escape_path(&absolute(&self.options.output_dir)?));
        digest.update(format!("\n{:?} {}", self.part_bytes, self.pin));
        Ok(Hex(&digest.finalize()).to_string())
    }

    /// What is read of buckets: only lists.
    ///
    /// # Errors
    /// When a source cannot be listed.
    pub fn survey(&self, watch: &dyn Watch) -> Result<Totals, Error> {
        let mut finding = self.finding(watch);
        self.find(&mut finding)?;
        match finding.inputs {
            0 => Err(nothing_listed(self.options, finding.not_read)),
            _ => Ok(finding.stored),
        }
    }

    fn finding<'w>(&'w self, watch: &'w dyn Watch) -> Finding<'w> {
        Finding {
            sorter: Sorter::new(self.scratch),
            not_read: NameLog::new(self.scratch),
            not_regular: 0,
            inputs: 0,
            bytes: 0,
            stored: Totals::default(),
            pin: self.pin,
            watch,
            stores: self.stores,
        }
    }

    fn body(&self, order: String, work: &Work, watch: &dyn Watch) -> Result<Body, Error> {
        let mut finding = self.finding(watch);
        let roots = self.find(&mut finding)?;
        let mixed = self.options.mix.iter().map(|mix| finding.look(&mix.source.path));
        let mixed = mixed.collect::<Result<Vec<Looked>, Error>>()?;
        watch.listed(finding.inputs);
        if finding.stored.objects > 0 {
            let Totals { objects, bytes, requests } = finding.stored;
            watch.stored(objects, bytes, requests);
        }
        let Finding { sorter, not_read, not_regular, inputs, bytes, .. } = finding;
        if inputs == 0 {
            return Err(nothing_listed(self.options, not_read));
        }
        let part_bytes = self.part_bytes.unwrap_or_else(|| MIN_PART_BYTES.max(bytes.div_ceil(PARTS)));
        let is_durable = self.options.durability == Durability::Sync;
        let mut parts = Cutting::new(self, work, part_bytes)?;
        let mut sorted = sorter.sorted()?;
        parts.cut(&mut sorted, watch)?;
        let prefixes = mix_prefixes(&self.options.mix);
        let mixes = self.options.mix.iter().zip(&prefixes).zip(mixed);
        for (number, ((mix, prefix), Looked { pin, object, bytes })) in (1..).zip(mixes) {
            let what = What::Container(mix.source.kind, absolute(&mix.source.path)?);
            let input = Input { root: 0, key: prefix.clone(), pin, what, object };
            parts.add_whole(&input, bytes, number)?;
        }
        let (listing, index, parts) = parts.finish()?;
        let mut names = Vec::new();
        write_names(&not_read, &mut names).map_err(Error::NameLog)?;
        let by_kind = not_read.by_kind().map(|(kind, count)| (kind.to_owned(), count));
        Ok(Body {
            schema: SCHEMA.to_owned(),
            tool: TOOL.to_owned(),
            order,
            asked: Hex(&Sha256::digest(self.asked)).to_string(),
            settings: Settings::of(self.options, &prefixes),
            output: escape_path(&absolute(&self.options.output_dir)?),
            roots,
            parts,
            inputs,
            bytes,
            part_bytes,
            not_regular,
            not_read_by_kind: by_kind.collect(),
            listing,
            index,
            not_read: put(work, "plan/not-read", &names, is_durable)?,
        })
    }

    /// Finds everything that holds records; gives the roots of those that are files of their own.
    fn find(&self, finding: &mut Finding<'_>) -> Result<Vec<PlanRoot>, Error> {
        let mut roots: Vec<PlanRoot> = Vec::new();
        let (mut named, mut schemes) = (None, BTreeMap::new());
        for (source, prefix) in self.options.sources.iter().zip(prefixes(&self.options.sources)) {
            let new_root = |roots: &mut Vec<PlanRoot>, path: &Path, prefix: &[u8]| {
                let number = u16::try_from(roots.len()).ok().filter(|number| *number < list::MAX_ROOTS);
                let root = PlanRoot { path: escape_path(&absolute(path)?), prefix: escape(prefix) };
                roots.push(root);
                number.ok_or(Error::TooManySources(roots.len()))
            };
            match source.kind {
                SourceKind::Directory(containers) if let Some(place) = source.address() => {
                    let number = new_root(&mut roots, &source.path, &prefix)?;
                    finding.add_place(number, place, &prefix, containers, &self.options.output_dir)?;
                }
                SourceKind::Record if let Some(address) = source.address() => {
                    let scheme = &address[..address.find("://").map_or(0, |scheme| scheme + 3)];
                    let number = match schemes.get(scheme) {
                        Some(number) => *number,
                        None => new_root(&mut roots, Path::new(scheme), scheme.as_bytes())?,
                    };
                    schemes.insert(scheme, number);
                    finding.add(number, &source.path, address.as_bytes(), Found::Record)?;
                }
                SourceKind::Directory(containers) => {
                    let number = new_root(&mut roots, &source.path, &prefix)?;
                    let skip = Some(&*self.options.output_dir);
                    let directory = Directory { root: &source.path, prefix: &prefix, containers, skip };
                    walk(&directory, &mut |path, key, found| finding.add(number, path, key, found))?;
                }
                SourceKind::Record => {
                    let number = match named {
                        Some(number) => number,
                        None => *named.insert(new_root(&mut roots, Path::new("."), b"")?),
                    };
                    let (key, found) = walk::record(&source.path)?;
                    finding.add(number, &source.path, &key, found)?;
                }
                SourceKind::Lines(_) | SourceKind::Tar(_) => {
                    finding.add_container(&prefix, source.kind, &source.path)?;
                }
            }
        }
        Ok(roots)
    }
}

fn nothing_listed(options: &Options, not_read: NameLog) -> Error {
    let root = match options.sources.as_slice() {
        [source] => Some(source.path.clone()),
        _ => None,
    };
    Error::NothingListed { sources: options.shown_sources(), root, not_read: Arc::new(not_read) }
}

/// Parts in the making.
struct Cutting<'w> {
    order: &'w PlanOrder<'w>,
    work: &'w Work,
    listing: DigestObject<'w>,
    index: Vec<u8>,
    part_bytes: u64,
    is_durable: bool,
    /// The part in the making: its inputs as they are written, and what is known of them.
    inputs: Vec<u8>,
    part: PartPlan,
}

const NO_PART: PartPlan = PartPlan { start: 0, length: 0, inputs: 0, bytes: 0, mix: 0, sha256: [0; 32] };

impl<'w> Cutting<'w> {
    fn new(order: &'w PlanOrder<'w>, work: &'w Work, part_bytes: u64) -> Result<Cutting<'w>, Error> {
        let (listing, index, inputs) = (work.begin()?, Vec::new(), Vec::new());
        let is_durable = order.options.durability == Durability::Sync;
        Ok(Cutting { order, work, listing, index, part_bytes, is_durable, inputs, part: NO_PART })
    }

    /// Cuts `sorted` inputs into parts.
    fn cut(&mut self, sorted: &mut Merge<RunStream>, watch: &dyn Watch) -> Result<(), Error> {
        let mut last: Option<Input> = None;
        while let Some((_, entry)) = sorted.peek() {
            let (size, mut rest) = entry.value.split_at(8);
            let bytes = u64::from_le_bytes(size.try_into().expect("eight bytes"));
            let input = Input::read(&mut rest).expect("it was written here");
            let input = Input { key: entry.key.clone(), ..input };
            sorted.advance()?;
            match &input.what {
                What::Record => {
                    if let Some(last) = last.filter(|last| last.key == input.key) {
                        let place = |input: &Input| format!("source {}", input.root + 1);
                        let key = KeyText(&input.key).to_json();
                        return Err(Error::EqualKeys { key, first: place(&last), second: place(&input) });
                    }
                    if self.part.inputs > 0 && self.part.bytes + bytes > self.part_bytes {
                        self.end_part()?;
                    }
                    self.add(&input, bytes);
                    last = Some(input);
                    continue;
                }
                What::Container(SourceKind::Lines(Compression::None), path) if bytes > self.part_bytes => {
                    for range in self.ranges(path, &input, watch)? {
                        let what = What::Lines(path.clone(), range);
                        self.add_whole(&Input { what, ..input.clone() }, range.end - range.start, 0)?;
                    }
                }
                What::Container(..) | What::Lines(..) => self.add_whole(&input, bytes, 0)?,
            }
            last = None;
        }
        self.end_part()
    }

    /// Ranges of whole lines of the file at `path`, each of about the size of a part.
    fn ranges(&self, path: &Path, input: &Input, watch: &dyn Watch) -> Result<Vec<LineRange>, Error> {
        let section = match (&input.object, address(path)) {
            (Some(seen), Some(address)) => {
                container(address, seen, 0..seen.bytes, self.order.scratch, self.order.stores)?
            }
            _ => {
                let failed = |source| Error::Read { path: path.to_owned(), source };
                let file = File::open(path).map_err(failed)?;
                let length = file.metadata().map_err(failed)?.len();
                Section { file: Arc::new(file), start: 0, length }
            }
        };
        let mut ranges = Vec::new();
        let mut range = LineRange { start: 0, end: 0, first: 0 };
        index_lines(&section, path, |line, extent| {
            if let Extent::Bytes(start, bytes) = extent {
                range.end = start + bytes;
                if range.end - range.start >= self.part_bytes {
                    ranges.push(range);
                    range = LineRange { start: range.end, end: range.end, first: line + 1 };
                    watch.check_stop()?;
                }
            }
            Ok(())
        })?;
        if range.end > range.start || ranges.is_empty() {
            ranges.push(range);
        }
        match input.pin {
            Some(planned) if pin(path)? != planned => Err(Error::Changed { path: path.to_owned() }),
            _ => Ok(ranges),
        }
    }

    fn add(&mut self, input: &Input, bytes: u64) {
        input.write(&mut self.inputs);
        self.part.inputs += 1;
        self.part.bytes += bytes;
    }

    /// Makes `input` a part of its own.
    fn add_whole(&mut self, input: &Input, bytes: u64, mix: u64) -> Result<(), Error> {
        self.end_part()?;
        self.add(input, bytes);
        self.part.mix = mix;
        self.end_part()
    }

    fn end_part(&mut self) -> Result<(), Error> {
        if self.part.inputs == 0 {
            return Ok(());
        }
        let part = PartPlan {
            start: self.listing.bytes,
            length: self.inputs.len() as u64,
            sha256: Sha256::digest(&self.inputs).into(),
            ..std::mem::replace(&mut self.part, NO_PART)
        };
        part.write(&mut self.index);
        self.listing.add(&self.inputs)?;
        self.inputs.clear();
        Ok(())
    }

    fn finish(self) -> Result<(PlanObject, PlanObject, u64), Error> {
        let parts = (self.index.len() / INDEX_ROW_BYTES) as u64;
        let (name, digest) = self.listing.finish("plan/listing", self.is_durable)?;
        let listing = PlanObject { name, bytes: digest.bytes, sha256: digest.sha256 };
        Ok((listing, put(self.work, "plan/index", &self.index, self.is_durable)?, parts))
    }
}

fn put(work: &Work, prefix: &str, bytes: &[u8], is_durable: bool) -> Result<PlanObject, Error> {
    let mut object = work.begin()?;
    object.add(bytes)?;
    let (name, digest) = object.finish(prefix, is_durable)?;
    Ok(PlanObject { name, bytes: digest.bytes, sha256: digest.sha256 })
}

/// `path` without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    if let Some(address) = address(path) {
        return address.trim_end_matches('/').into();
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for there in path.ancestors() {
        if let Ok(real) = there.canonicalize() {
            return path.strip_prefix(there).map(|rest| real.join(rest)).unwrap_or(real);
        }
    }
    path
}

/// Fails where files of `work` cannot be moved to `output`. Nothing can be moved to `.`: what the system says of it
/// comes after it has seen that both are on one file system, and leaves nothing.
#[cfg(unix)]
fn check_file_system(work: &Path, output: &Path) -> Result<(), Error> {
    let output = real(output);
    let there = output.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    match std::fs::rename(work.join("plan"), there.join(".")) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            Err(Error::OtherFileSystem { work: work.to_owned(), output })
        }
        _ => Ok(()),
    }
}

/// Where nothing can be tried so, publication copies what it cannot link.
#[cfg(not(unix))]
fn check_file_system(_: &Path, _: &Path) -> Result<(), Error> {
    Ok(())
}
