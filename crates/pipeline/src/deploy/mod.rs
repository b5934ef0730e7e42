//! A tuned model brought up under a name, once, whatever happens, and brought down again.
//!
//! A deployment's name comes from its job, and within an endpoint a name is given once: that is
//! what keeps a lost reply from being paid twice. It is looked for before it is asked for, and an
//! answer that leaves open whether it exists is settled by two looks a grace apart. What runs
//! costs money by the minute, so every way out says how it left things; bringing down asks for
//! no machines first, and tidies up after. Nothing here prints or asks anybody.

use std::time::Duration;

use serde::Serialize;

use crate::job::create::{Sent, send_once};
use ctxtune_service::http::said::after_colon;
use ctxtune_service::together::endpoints::{Deployment, Endpoint, Endpoints, NewDeployment, Split, State};
use ctxtune_service::together::{self, Certainty, JobId, Tries};
use ctxtune_service::{Clock, Stopped, http};

pub(crate) mod hold;
pub mod running;
pub mod start;

/// What the names of our deployments begin with.
pub(crate) const PREFIX: &str = "ctxtune-";
/// How long a deployment may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// How long a deployment that is brought down may take until it can be removed.
const LAST_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// The pause between two looks at a deployment that changes.
const POLL: Duration = Duration::from_secs(5);
/// The pause between two looks at a deployment that is up.
const LOOK: Duration = Duration::from_secs(60);
/// How often something is asked for that was certainly not accepted, or was changed meanwhile.
const TRIES: u32 = 5;
/// The first wait between such tries; it doubles.
const BACKOFF: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error(transparent)]
    Api(#[from] together::Error),
    #[error("whether the deployment {name} was created is not known: {reason}")]
    Unknown { name: String, reason: String },
    #[error("the endpoint {endpoint} already runs {other}, and one name is one model")]
    Shared { endpoint: String, other: String },
    #[error("the deployment {name} failed{}", after_colon(.message))]
    Failed { name: String, message: String },
    #[error("the deployment {name} was stopped from elsewhere")]
    Ended { name: String },
    #[error("the deployment {name} was {state} after {} min", .waited.as_secs() / 60)]
    Late { name: String, state: State, waited: Duration },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl DeployError {
    pub fn is_stopped(&self) -> bool {
        matches!(
            self,
            DeployError::Stopped(_) | DeployError::Api(together::Error::Http(http::Error::Stopped))
        )
    }
}

pub(crate) fn name_of(job: &JobId) -> String {
    let letters = job.as_str().trim_start_matches("ft-").chars().filter(char::is_ascii_alphanumeric);
    let short: String = letters.take(8).collect();
    format!("{PREFIX}{}", short.to_ascii_lowercase())
}

pub fn is_ours(deployment: &Deployment) -> bool {
    deployment.bare_name().starts_with(PREFIX)
}

pub(crate) struct Deploying<'d> {
    pub api: Endpoints<'d>,
    /// The endpoint's name, without the project's.
    pub endpoint: &'d str,
    pub name: String,
    /// How long the service may take to list what it has accepted.
    pub grace: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub endpoint: Endpoint,
    pub deployment: Deployment,
    pub is_new: bool,
}

impl Deploying<'_> {
    fn clock(&self) -> &dyn Clock {
        self.api.together.client().clock()
    }

    /// The deployment that is there already. Fails when the service cannot be asked, or another model answers
    /// under the name.
    pub fn find(&self) -> Result<Option<Placed>, DeployError> {
        let Some(endpoint) = self.find_endpoint()? else { return Ok(None) };
        let all = self.alone_at(&endpoint)?;
        let deployment = all.into_iter().find(|deployment| deployment.bare_name() == self.name);
        Ok(deployment.map(|deployment| Placed { endpoint, deployment, is_new: false }))
    }

    /// What is deployed at `endpoint`, where no other model runs there.
    fn alone_at(&self, endpoint: &Endpoint) -> Result<Vec<Deployment>, DeployError> {
        let all = self.api.deployments(&endpoint.id)?;
        let is_other = |other: &&Deployment| other.bare_name() != self.name && other.is_wanted();
        if let Some(other) = all.iter().find(is_other) {
            let (endpoint, other) = (self.endpoint.to_owned(), other.bare_name().to_owned());
            return Err(DeployError::Shared { endpoint, other });
        }
        Ok(all)
    }

    fn find_endpoint(&self) -> Result<Option<Endpoint>, DeployError> {
        let all = self.api.list(Tries::Many)?;
        Ok(all.into_iter().find(|endpoint| endpoint.bare_name() == self.endpoint))
    }

    /// Sees to it that the deployment is there and is asked to run.
    pub(crate) fn bring_up(&self, new: &NewDeployment<'_>) -> Result<Placed, DeployError> {
        let endpoint = self.have_endpoint()?;
        let (deployment, is_new) = match self.look(&endpoint)? {
            Some(deployment) => (deployment, false),
            None => (self.create(&endpoint, new)?, true),
        };
        if is_new {
            // Another run may have had the same thought at the same time.
            self.alone_at(&endpoint)?;
        }
        if deployment.state.is_failed() {
            return Err(self.failed(&deployment));
        }
        let deployment = if deployment.is_up() {
            deployment
        } else {
            self.api.scale((&endpoint.id, &deployment.id), 1)?
        };
        Ok(Placed { endpoint, deployment, is_new })
    }

    /// The endpoint, created where it is not there. It costs nothing, and its name is given once.
    fn have_endpoint(&self) -> Result<Endpoint, DeployError> {
        let mut wait = BACKOFF;
        for left in (0..TRIES).rev() {
            if let Some(endpoint) = self.find_endpoint()? {
                return Ok(endpoint);
            }
            match self.api.create(self.endpoint) {
                Ok(endpoint) => return Ok(endpoint),
                Err(error) if error.certainty() == Certainty::Refused || left == 0 => {
                    return Err(error.into());
                }
                Err(error) => self.clock().wait(error.retry_after().unwrap_or(wait))?,
            }
            wait *= 2;
        }
        unreachable!("the last try returns")
    }

    fn look(&self, endpoint: &Endpoint) -> Result<Option<Deployment>, DeployError> {
        let all = self.api.deployments(&endpoint.id)?;
        Ok(all.into_iter().find(|deployment| deployment.bare_name() == self.name))
    }

    fn create(&self, endpoint: &Endpoint, new: &NewDeployment<'_>) -> Result<Deployment, DeployError> {
        match send_once(self.clock(), || self.api.create_deployment(&endpoint.id, new))? {
            Sent::Done(deployment) => Ok(deployment),
            Sent::Refused(error) => Err(error.into()),
            Sent::Unknown(error) => self.look_twice(endpoint, &error),
        }
    }

    fn look_twice(&self, endpoint: &Endpoint, error: &together::Error) -> Result<Deployment, DeployError> {
        let unknown = |reason: String| DeployError::Unknown { name: self.name.clone(), reason };
        let look = || match self.look(endpoint) {
            Err(failed) if !failed.is_stopped() => Err(unknown(format!("{error}; then {failed}"))),
            looked => looked,
        };
        if let Some(deployment) = look()? {
            return Ok(deployment);
        }
        self.clock().wait(self.grace)?;
        look()?.ok_or_else(|| unknown(error.to_string()))
    }

    fn failed(&self, deployment: &Deployment) -> DeployError {
        DeployError::Failed { name: self.name.clone(), message: deployment.message.clone() }
    }

    /// Waits until it answers; `tell` hears of every look.
    pub fn wait(
        &self,
        placed: &Placed,
        tell: &mut dyn FnMut(&Deployment),
    ) -> Result<Deployment, DeployError> {
        let start = self.clock().elapsed();
        let ids = (placed.endpoint.id.as_str(), placed.deployment.id.as_str());
        let mut last = placed.deployment.clone();
        loop {
            tell(&last);
            if last.state.is_ready() {
                return Ok(last);
            }
            if last.state.is_failed() {
                return Err(self.failed(&last));
            }
            if last.is_scaled_down() {
                return Err(DeployError::Ended { name: self.name.clone() });
            }
            let waited = self.clock().elapsed().saturating_sub(start);
            if waited >= PATIENCE {
                return Err(DeployError::Late { name: self.name.clone(), state: last.state, waited });
            }
            self.clock().wait(POLL)?;
            match self.api.deployment(ids) {
                Ok(deployment) => last = deployment,
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends all requests to `placed`, and to nothing else.
    pub fn route(&self, placed: &Placed) -> Result<Endpoint, DeployError> {
        change_split(self.api, &placed.endpoint.id, &|_| vec![(placed.deployment.id.clone(), 1.0)])
    }

    /// Waits this long, or until it was brought down from elsewhere: whether it was.
    pub fn stay(&self, placed: &Placed, time: Duration) -> Result<bool, Stopped> {
        let end = self.clock().elapsed().saturating_add(time);
        let ids = (placed.endpoint.id.as_str(), placed.deployment.id.as_str());
        loop {
            let left = end.saturating_sub(self.clock().elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            self.clock().wait(left.min(LOOK))?;
            match self.api.deployment(ids) {
                Ok(now) if !now.is_wanted() => return Ok(true),
                Err(error) if error.status() == Some(404) => return Ok(true),
                // That it cannot be looked at says nothing about it: the time goes on.
                _ => {}
            }
        }
    }
}

/// Asks for no machines, in one request where it is known what runs, and says whether anything did. Fails when
/// the service cannot be reached; then it may run on.
pub(crate) fn abandon(deploying: &Deploying<'_>, known: Option<&Placed>) -> Result<bool, together::Error> {
    let api = deploying.api;
    if let Some(Placed { endpoint, deployment, .. }) = known {
        api.scale((&endpoint.id, &deployment.id), 0)?;
        return Ok(true);
    }
    let all = api.list(Tries::Many)?;
    let of_name = all.iter().filter(|endpoint| endpoint.bare_name() == deploying.endpoint);
    let found = of_name.flat_map(|endpoint| endpoint.deployments.iter().map(move |one| (endpoint, one)));
    let Some((endpoint, deployment)) = found.into_iter().find(|(_, one)| one.bare_name() == deploying.name)
    else {
        return Ok(false);
    };
    api.scale((&endpoint.id, &deployment.id), 0)?;
    Ok(true)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Ours,
    /// All, though only ours are removed.
    All,
}

/// What became of the deployments of an endpoint; names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Down {
    /// Those that were asked to have no machines.
    pub stopped: Vec<String>,
    /// Those that are gone.
    pub removed: Vec<String>,
    /// Those that still run, since they are not ours.
    pub left: Vec<String>,
}

/// Brings down what runs at `endpoint`: no machines, of which `tell` hears at once, no requests, and then no
/// deployment. Fails when anything may still run. That something cannot be removed is no failure: it costs
/// nothing.
pub fn bring_down(
    api: Endpoints<'_>,
    endpoint: &Endpoint,
    reach: Reach,
    tell: &mut dyn FnMut(&str),
) -> Result<Down, DeployError> {
    let all = api.deployments(&endpoint.id)?;
    let (chosen, others): (Vec<Deployment>, Vec<Deployment>) =
        all.into_iter().partition(|deployment| reach == Reach::All || is_ours(deployment));
    let is_running = |deployment: &&Deployment| deployment.is_wanted();
    let names = |deployment: &Deployment| deployment.bare_name().to_owned();
    let mut down = Down { left: others.iter().filter(is_running).map(names).collect(), ..Down::default() };
    let mut failure = None;
    for deployment in chosen.iter().filter(is_running) {
        // One that cannot be stopped is no reason to let the others run.
        match api.scale((&endpoint.id, &deployment.id), 0) {
            Ok(_) => {
                tell(deployment.bare_name());
                down.stopped.push(names(deployment));
            }
            Err(error) if error.status() == Some(404) => {}
            Err(error) => failure = Some(error),
        }
    }
    if let Some(error) = failure {
        return Err(error.into());
    }
    let is_chosen = |id: &String| chosen.iter().any(|deployment| deployment.id == *id);
    change_split(api, &endpoint.id, &|split| {
        split.iter().filter(|(id, _)| !is_chosen(id)).cloned().collect()
    })?;
    for deployment in chosen.iter().filter(|deployment| is_ours(deployment)) {
        if remove(api, (&endpoint.id, &deployment.id))? {
            down.removed.push(names(deployment));
        }
    }
    Ok(down)
}

/// Removes a deployment as soon as it has stopped; whether it could be.
fn remove(api: Endpoints<'_>, ids: (&str, &str)) -> Result<bool, Stopped> {
    let clock = api.together.client().clock();
    let start = clock.elapsed();
    loop {
        match api.deployment(ids) {
            Ok(deployment) if !deployment.state.is_billed() => {
                return Ok(api.delete_deployment(ids).is_ok());
            }
            Err(error) if error.status() == Some(404) => return Ok(true),
            Err(error) if !error.is_passing() => return Ok(false),
            _ => {}
        }
        if clock.elapsed().saturating_sub(start) >= LAST_PATIENCE {
            return Ok(false);
        }
        clock.wait(POLL)?;
    }
}

/// Changes where requests go, from what it is at the moment; nothing is sent where nothing changes.
fn change_split(
    api: Endpoints<'_>,
    endpoint: &str,
    change: &dyn Fn(&Split) -> Split,
) -> Result<Endpoint, DeployError> {
    let mut left = TRIES;
    loop {
        let endpoint = api.retrieve(endpoint)?;
        let split = change(&endpoint.split);
        if split == endpoint.split {
            return Ok(endpoint);
        }
        left -= 1;
        match api.set_split(&endpoint, &split) {
            Ok(endpoint) => return Ok(endpoint),
            // Changed meanwhile, perhaps by our own request whose reply was lost.
            Err(error) if matches!(error.status(), Some(409 | 412)) && left > 0 => {
                api.together.client().clock().wait(BACKOFF)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_named_after_its_job() {
        let check = |job: &str, expected: &str| {
            assert_eq!(name_of(&JobId::new(job).unwrap()), expected, "{job}");
        };
        check("ft-0123abcd-4567-89ab", "ctxtune-0123abcd");
        check("ft-AB-1", "ctxtune-ab1");
        check("job_9", "ctxtune-job9");
    }
}
