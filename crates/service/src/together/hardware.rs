//! What a model may be deployed on, and what a minute of it costs.
//!
//! A price is known where the catalogue lists the machine that a configuration selects, and only there; nothing
//! is guessed from a name. See <https://docs.together.ai/reference>.

use serde_json::Value;

use crate::http::{Body, Method};
use crate::together::base::encode;
use crate::together::job::{number, text};
use crate::together::project::{Project, pages};
use crate::together::{Error, Together, Tries};

/// A way to run a model: engine, machine, settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub id: String,
    /// Whose it is: public ones are not the project's.
    pub project_id: String,
    /// The machine, as `1xnvidia-h100-80gb`; absent where it is not said.
    pub hardware: Option<String>,
    /// Whether it is for adapters that come and go rather than for one whole model.
    pub is_for_adapters: bool,
}

impl Config {
    fn read(object: &Value) -> Option<Config> {
        let selectors = object.get("selectors").and_then(Value::as_array);
        let selected = |key: &str| {
            let selector = selectors?.iter().find(|selector| selector["key"] == key)?;
            text(selector, &["value"])
        };
        let hardware = selected("accelerator_count")
            .zip(selected("accelerator_type"))
            .map(|(count, kind)| format!("{count}x{kind}"));
        Some(Config {
            id: text(object, &["id"])?,
            project_id: text(object, &["projectId", "project_id"])?,
            hardware,
            is_for_adapters: matches!(selected("adapter_mode").as_deref(), Some("dynamic" | "fixed")),
        })
    }

    pub fn path(&self) -> String {
        format!("projects/{}/configs/{}", self.project_id, self.id)
    }
}

/// The configurations that a model of the project can be deployed with, those of its base model where it
/// has one, in the order of the service.
pub fn configs(together: &Together, project: &Project, model: &str) -> Result<Vec<Config>, Error> {
    let known = together.get(&format!("/v2/projects/{}/models/{}", encode(&project.id), encode(model)))?;
    let base = text(&known, &["baseModelId", "base_model_id"]);
    // A resource name ends in the id.
    let named = text(&known, &["baseModel", "base_model"])
        .and_then(|path| path.rsplit('/').next().map(str::to_owned))
        .filter(|id| !id.is_empty());
    let reference = base.or(named).unwrap_or_else(|| model.to_owned());
    let path =
        format!("/v2/projects/{}/configs?referenceModelId={}", encode(&project.id), encode(&reference));
    Ok(pages(together, &path, Tries::Many)?.iter().filter_map(Config::read).collect())
}

/// The names of the base models that can be deployed as whole models: a tuned one runs where its base does.
pub fn hosted(together: &Together) -> Result<Vec<String>, Error> {
    Ok(pages(together, "/v2/supported-models", Tries::Many)?.iter().filter_map(hosted_name).collect())
}

/// The name of a model that has a profile of a deployment other than for adapters.
fn hosted_name(object: &Value) -> Option<String> {
    let profiles = object.get("deploymentProfiles")?.as_array()?;
    let is_whole =
        |profile: &Value| text(profile, &["adapterMode"]).is_none_or(|mode| mode == "ADAPTER_MODE_DISABLED");
    profiles.iter().any(is_whole).then(|| text(object, &["name"]))?
}

/// What machines cost: the catalogue of the service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue(Vec<Machine>);

#[derive(Debug, Clone, PartialEq)]
struct Machine {
    names: Vec<String>,
    cents_an_hour: f64,
}

impl Catalogue {
    /// The catalogue; one that cannot be had knows no price.
    pub fn look_up(together: &Together) -> Catalogue {
        let path = "/v2/public/inference-instance-types";
        let value = together.ask(Method::Get, path, Body::Empty, Tries::One).unwrap_or_default();
        Catalogue::read(&value)
    }

    fn read(value: &Value) -> Catalogue {
        let machine = |object: &Value| {
            let names = [text(object, &["name"]), text(object, &["id"])];
            let cents_an_hour = number(object, &["priceCentsPerHour", "price_cents_per_hour"])?;
            let names = names.into_iter().flatten().map(|name| plain(&name)).collect();
            // A machine for nothing is one whose price nobody has entered.
            (cents_an_hour > 0.0).then_some(Machine { names, cents_an_hour })
        };
        let list = value.get("data").unwrap_or(value).as_array();
        Catalogue(list.into_iter().flatten().filter_map(machine).collect())
    }

    /// The cheapest machine, and its dollars an hour.
    pub fn cheapest(&self) -> Option<(&str, f64)> {
        let machine = self.0.iter().min_by(|one, other| one.cents_an_hour.total_cmp(&other.cents_an_hour))?;
        Some((machine.names.first()?, machine.cents_an_hour / 100.0))
    }

    pub fn dollars_a_minute(&self, hardware: &str) -> Option<f64> {
        let wanted = plain(hardware);
        let machine = self.0.iter().find(|machine| machine.names.contains(&wanted))?;
        Some(machine.cents_an_hour / 100.0 / 60.0)
    }
}

/// A machine's name without what some names leave out.
fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace("nvidia-", "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_price_is_found_by_name_by_id_and_without_the_vendor_and_never_guessed() {
        let catalogue = Catalogue::read(&json!({ "data": [
            { "id": "it_1", "name": "1xnvidia-h100-80gb", "priceCentsPerHour": 300 },
            { "id": "it_2", "name": "2xnvidia-h100-80gb", "priceCentsPerHour": 0 },
            { "id": "it_3" },
        ]}));
        let check = |hardware: &str, expected: Option<f64>| {
            assert_eq!(catalogue.dollars_a_minute(hardware), expected, "{hardware}");
        };
        check("1xnvidia-h100-80gb", Some(0.05));
        check("1xH100-80GB", Some(0.05));
        check("it_1", Some(0.05));
        check("2xnvidia-h100-80gb", None);
        check("it_3", None);
        check("", None);
        assert_eq!(Catalogue::read(&Value::Null), Catalogue::default());
    }

    #[test]
    fn a_model_is_hosted_that_has_a_profile_other_than_for_adapters() {
        let check = |modes: &[Option<&str>], expected: Option<&str>| {
            let profiles: Vec<Value> = modes.iter().map(|mode| json!({ "adapterMode": mode })).collect();
            let object = json!({ "name": "a/b", "deploymentProfiles": profiles });
            assert_eq!(hosted_name(&object).as_deref(), expected, "{modes:?}");
        };
        check(&[], None);
        check(&[Some("ADAPTER_MODE_DYNAMIC"), Some("ADAPTER_MODE_FIXED")], None);
        check(&[Some("ADAPTER_MODE_DYNAMIC"), Some("ADAPTER_MODE_DISABLED")], Some("a/b"));
        check(&[None], Some("a/b"));
    }

    #[test]
    fn a_configuration_names_its_machine_and_its_purpose() {
        let selectors = |mode: &str| {
            json!([
                { "key": "accelerator_type", "value": "nvidia-h100-80gb" },
                { "key": "accelerator_count", "value": "2" },
                { "key": "adapter_mode", "value": mode },
            ])
        };
        let read = |mode: &str| {
            Config::read(&json!({ "id": "cr_1", "projectId": "p", "selectors": selectors(mode) })).unwrap()
        };
        let config = read("none");
        assert_eq!(config.hardware.as_deref(), Some("2xnvidia-h100-80gb"));
        assert_eq!((config.path().as_str(), config.is_for_adapters), ("projects/p/configs/cr_1", false));
        assert!(read("dynamic").is_for_adapters && read("fixed").is_for_adapters);
        let bare = Config::read(&json!({ "id": "cr_1", "projectId": "p" })).unwrap();
        assert_eq!((bare.hardware, bare.is_for_adapters), (None, false));
        assert_eq!(Config::read(&json!({ "id": "cr_1" })), None);
    }
}
