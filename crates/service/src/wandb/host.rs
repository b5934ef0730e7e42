//! Where W&B is: the two API hosts of the hosted service, and any other server.
//!
//! The service moved to a new host in September 2026. Both API hosts accept the same keys, so that a key
//! stored for one is used for the other, and all base URLs have the same pages. Pure.

pub const DEFAULT_BASE_URL: &str = "https://api.forge.coreweave.com";
/// The API hosts of the hosted service, the current one first.
const HOSTED: [&str; 2] = ["api.forge.coreweave.com", "api.wandb.ai"];
/// The host of its pages, which also passes API calls on, below this path.
const FORGE: &str = "forge.coreweave.com";
const FORGE_API_PATH: &str = "/api/wandb";
const FORGE_APP: &str = "https://forge.coreweave.com/wandb";

/// The base URL of the API that `base`, a URL without a slash at its end, means.
pub fn api_url(base: &str) -> Result<String, String> {
    let host = host(base);
    let path = base.split_once("://").map_or(base, |(_, rest)| rest).strip_prefix(host).unwrap_or_default();
    let is_page = host == FORGE && path != FORGE_API_PATH || host == "wandb.ai" || host == "app.wandb.ai";
    if is_page {
        return Err(format!("`{base}` is not the API, which is at {DEFAULT_BASE_URL}"));
    }
    Ok(if host == FORGE { DEFAULT_BASE_URL.to_owned() } else { base.to_owned() })
}

pub fn app_url(base: &str) -> String {
    let base = base.trim_end_matches('/');
    if is_hosted(base) || host(base) == FORGE {
        return FORGE_APP.to_owned();
    }
    if base.contains("://api.wandb.") {
        return base.replacen("://api.wandb.", "://wandb.", 1);
    }
    base.replacen("://api.", "://app.", 1)
}

/// Whether `base` is the hosted service, under either name.
pub fn is_hosted(base: &str) -> bool {
    HOSTED.contains(&host(base))
}

/// The hosts whose keys the API at `base` accepts: its own first.
pub fn hosts(base: &str) -> Vec<&str> {
    let own = host(base);
    let others = HOSTED.into_iter().filter(|other| is_hosted(base) && *other != own);
    std::iter::once(own).chain(others).collect()
}

/// The host of `base`, with its port where there is one.
pub fn host(base: &str) -> &str {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_base_urls_of_the_hosted_service_have_the_same_pages() {
        let check = |base: &str, api: &str, app: &str| {
            assert_eq!(api_url(base).as_deref(), Ok(api));
            assert_eq!((app_url(base).as_str(), app_url(api).as_str()), (app, app));
        };
        let forge = "https://forge.coreweave.com/wandb";
        check("https://api.wandb.ai", "https://api.wandb.ai", forge);
        check("https://api.forge.coreweave.com", "https://api.forge.coreweave.com", forge);
        check("https://forge.coreweave.com/api/wandb", "https://api.forge.coreweave.com", forge);
        check(DEFAULT_BASE_URL, DEFAULT_BASE_URL, forge);
    }

    #[test]
    fn other_servers_have_their_own_pages() {
        let check = |base: &str, app: &str| {
            assert_eq!(api_url(base).as_deref(), Ok(base.trim_end_matches('/')));
            assert_eq!(app_url(base), app);
        };
        check("https://api.wandb.example.org", "https://wandb.example.org");
        check("https://api.example.org", "https://app.example.org");
        check("http://127.0.0.1:8080", "http://127.0.0.1:8080");
        check("https://wandb.corp/to", "https://wandb.corp/to");
        check("https://api.wandb.ai.example.org", "https://wandb.ai.example.org");
    }

    #[test]
    fn a_page_is_no_base_url() {
        for page in ["https://forge.coreweave.com", "https://forge.coreweave.com/wandb", "https://wandb.ai"] {
            let refusal = api_url(page).unwrap_err();
            assert!(refusal.contains(page) && refusal.contains(DEFAULT_BASE_URL), "{refusal}");
        }
    }

    #[test]
    fn a_key_of_one_name_serves_the_other() {
        assert_eq!(hosts("https://api.wandb.ai"), ["api.wandb.ai", "api.forge.coreweave.com"]);
        assert_eq!(hosts(DEFAULT_BASE_URL), ["api.forge.coreweave.com", "api.wandb.ai"]);
        assert_eq!(hosts("http://127.0.0.1:8080/to"), ["127.0.0.1:8080"]);
        assert_eq!(hosts("https://api.wandb.ai.example.org"), ["api.wandb.ai.example.org"]);
    }
}
