//! What to do where there is no key of the training service.

use std::path::PathBuf;

use crate::env;
use crate::failure::Failure;
use crate::session::environment::Environment;

const KEYS_PAGE: &str = "https://api.together.ai/settings/api-keys";

/// The failure that a missing Together key is. After `tg login` there are credentials, and still no key.
pub fn missing(environment: &Environment) -> Failure {
    let mut failure = Failure::from(ctxtune_service::together::Error::NoKey);
    if let Some(path) = oauth_credentials(environment) {
        failure.hint = Some(format!(
            "`tg login` left OAuth credentials in `{}`, which only `tg` can use: create an API key at {KEYS_PAGE}, then \
             export {}=\"your-together-api-key\"",
            path.display(),
            env::TOGETHER_API_KEY
        ));
    }
    failure
}

/// The file that `tg login` leaves, where it is there. It is never opened.
fn oauth_credentials(environment: &Environment) -> Option<PathBuf> {
    let path = match environment.get(env::TOGETHER_CREDENTIALS_PATH) {
        Some(path) => PathBuf::from(path),
        None => {
            let config = environment.get(env::XDG_CONFIG_HOME).map(PathBuf::from);
            let config =
                config.or_else(|| Some(PathBuf::from(environment.get(env::HOME)?).join(".config")))?;
            config.join("together/credentials.json")
        }
    };
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_tg_login_are_named_where_they_are_and_there_is_no_key() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name).to_string_lossy().into_owned();
        let hint = |variables: &[(&'static str, String)]| {
            missing(&Environment::of(variables.to_vec())).hint.unwrap()
        };
        let own = (env::HOME, at(""));
        assert!(!hint(std::slice::from_ref(&own)).contains("tg login"));
        for (variable, file) in [
            (own.clone(), ".config/together/credentials.json"),
            ((env::XDG_CONFIG_HOME, at("x")), "x/together/credentials.json"),
            ((env::TOGETHER_CREDENTIALS_PATH, at("c.json")), "c.json"),
        ] {
            let path = home.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "{}").unwrap();
            let hint = hint(&[variable]);
            assert!(hint.contains(&at(file)) && hint.contains("settings/api-keys"), "{hint}");
            std::fs::remove_file(&path).unwrap();
        }
    }
}
