//! The name of every environment variable this program reads. They are read in `src/session` only.

/// What the names of variables about services begin with. A line of `.env` with such a name that is not
/// understood stops a command: without it another service, or another key, would be taken.
pub const SERVICES: [&str; 4] = ["TOGETHER_", "WANDB_", "OPENAI_", "HF_"];
/// The Hub's cache, where a model's tokenizer is looked for; jobs know it from `.env`, too.
pub const HF_HUB_CACHE: &str = "HF_HUB_CACHE";
/// The directory that has it as `hub`, without the variable above.
pub const HF_HOME: &str = "HF_HOME";
/// Any value but the empty one turns colour off; see <https://no-color.org>.
pub const NO_COLOR: &str = "NO_COLOR";
/// The kind of terminal: `dumb` can neither move its cursor nor show colour.
pub const TERM: &str = "TERM";
/// The key of the training service; also in `.env`.
pub const TOGETHER_API_KEY: &str = "TOGETHER_API_KEY";
/// The API, with or without `/v1`; also in `.env`.
pub const TOGETHER_BASE_URL: &str = "TOGETHER_BASE_URL";
/// Where `tg login` leaves its OAuth credentials, which are no key.
pub const TOGETHER_CREDENTIALS_PATH: &str = "TOGETHER_CREDENTIALS_PATH";
/// Further headers of every API call: `Name: value`, one a line.
pub const TOGETHER_CUSTOM_HEADERS: &str = "TOGETHER_CUSTOM_HEADERS";
/// The key of another server that speaks as OpenAI's does: of `generate --base-url` only; also in `.env`.
pub const OPENAI_API_KEY: &str = "OPENAI_API_KEY";
/// The key of Weights & Biases; also in `.env` and netrc.
pub const WANDB_API_KEY: &str = "WANDB_API_KEY";
/// The run an agent of Weights & Biases has chosen: part of a job's tag, and the run's id.
pub const WANDB_RUN_ID: &str = "WANDB_RUN_ID";
/// Where W&B is; like all of these also in `.env`.
pub const WANDB_BASE_URL: &str = "WANDB_BASE_URL";
/// Where its pages are, if that does not follow from the variable above.
pub const WANDB_APP_URL: &str = "WANDB_APP_URL";
/// Whose runs they are: a user or a team.
pub const WANDB_ENTITY: &str = "WANDB_ENTITY";
pub const WANDB_PROJECT: &str = "WANDB_PROJECT";
pub const WANDB_NAME: &str = "WANDB_NAME";
pub const WANDB_RUN_GROUP: &str = "WANDB_RUN_GROUP";
pub const WANDB_JOB_TYPE: &str = "WANDB_JOB_TYPE";
/// What runs are searched by, separated by commas.
pub const WANDB_TAGS: &str = "WANDB_TAGS";
pub const WANDB_NOTES: &str = "WANDB_NOTES";
/// `online`, `offline` or `disabled`.
pub const WANDB_MODE: &str = "WANDB_MODE";
/// A truth value: whether nothing is logged, as the integrations of W&B read it.
pub const WANDB_DISABLED: &str = "WANDB_DISABLED";
/// The directory in whose `wandb/` offline runs are written.
pub const WANDB_DIR: &str = "WANDB_DIR";
/// The directory of the settings that `wandb` keeps.
pub const WANDB_CONFIG_DIR: &str = "WANDB_CONFIG_DIR";
/// The sweep that an agent runs the program for.
pub const WANDB_SWEEP_ID: &str = "WANDB_SWEEP_ID";
/// The file with the values that a sweep suggests.
pub const WANDB_SWEEP_PARAM_PATH: &str = "WANDB_SWEEP_PARAM_PATH";
/// The proxy that the service is reached through, strongest first; each also in lower case.
pub const PROXIES: [&str; 2] = ["HTTPS_PROXY", "ALL_PROXY"];
/// Hosts that are reached without a proxy; also in lower case.
pub const NO_PROXY: &str = "NO_PROXY";
/// A bundle of certificates that TLS believes, on Linux.
pub const SSL_CERT_FILE: &str = "SSL_CERT_FILE";
/// The file that holds keys by host, instead of `.netrc` in the home directory.
pub const NETRC: &str = "NETRC";
/// Where the list of started jobs is kept, under `ctxtune/`.
pub const XDG_STATE_HOME: &str = "XDG_STATE_HOME";
/// The directory of settings, in whose `together/` those credentials are without the variable for them.
pub const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
/// The home directory: where state is kept without the variable above.
pub const HOME: &str = "HOME";
/// What decides whether text may be UTF-8, strongest first.
pub const LOCALES: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];
/// The program that tasks of an engine run, instead of this one.
pub const CTXTUNE_BIN: &str = "CTXTUNE_BIN";
/// For tests: bytes above which a file is uploaded in parts.
pub const CTXTUNE_MULTIPART_THRESHOLD: &str = "CTXTUNE_MULTIPART_THRESHOLD";
/// For tests: seconds the service may take to list a job that it has accepted.
pub const CTXTUNE_GRACE_SECONDS: &str = "CTXTUNE_GRACE_SECONDS";
/// For tests: what every wait is multiplied by.
pub const CTXTUNE_TIME_SCALE: &str = "CTXTUNE_TIME_SCALE";
/// What only tests set: honoured where every service is on this machine, refused elsewhere, since a shorter grace can
/// pay twice.
pub const FOR_TESTS: [&str; 3] = [CTXTUNE_MULTIPART_THRESHOLD, CTXTUNE_GRACE_SECONDS, CTXTUNE_TIME_SCALE];
