//! Joins the control API to adapters.

use std::sync::Arc;

use adapter_runtime::{DeploymentError, Health};
use agent_api::{ExecRequest, LogQuery};
use api_types::HealthReport;
use async_trait::async_trait;
use control_api::{AdapterCatalog, ControlError, DeploymentControl, FrameStream, LineStream, SpecError};
use futures_util::StreamExt;
use model::{DeploymentId, ExecutionId, RuntimeType};
use reconciler::{Adapters, CallsError, DeploymentCalls};
use serde_json::Value;

/// Talks to deployments through their adapters.
pub struct Control {
    pub calls: DeploymentCalls,
}

#[async_trait]
impl DeploymentControl for Control {
    async fn exec(
        &self,
        deployment: DeploymentId,
        execution: ExecutionId,
        request: ExecRequest,
    ) -> Result<FrameStream, ControlError> {
        let frames = self.calls.exec(deployment, execution, request).await.map_err(control_error)?;
        Ok(Box::pin(frames.map(|frame| frame.map_err(control_error))))
    }

    async fn attach(
        &self,
        deployment: DeploymentId,
        execution: ExecutionId,
        cursor: u64,
    ) -> Result<FrameStream, ControlError> {
        let frames = self.calls.attach(deployment, execution, cursor).await.map_err(control_error)?;
        Ok(Box::pin(frames.map(|frame| frame.map_err(control_error))))
    }

    async fn logs(&self, deployment: DeploymentId, query: LogQuery) -> Result<LineStream, ControlError> {
        let lines = self.calls.logs(deployment, query).await.map_err(control_error)?;
        Ok(Box::pin(lines.map(|line| line.map_err(control_error))))
    }

    async fn check_health(&self, deployment: DeploymentId) -> Result<HealthReport, ControlError> {
        let (answer, incarnation) = self.calls.check_health(deployment).await.map_err(control_error)?;
        let (health, detail) = match answer {
            Health::Healthy => (model::Health::Healthy, None),
            Health::Unhealthy(why) => (model::Health::Unhealthy, Some(why)),
        };
        Ok(HealthReport { health, detail, incarnation, checked_at: chrono::Utc::now() })
    }
}

fn control_error(error: CallsError) -> ControlError {
    match error {
        CallsError::NoDeployment(_) => ControlError::NotFound,
        CallsError::NotRunning { .. } => ControlError::NotRunning(error.to_string()),
        CallsError::Unsupported { runtime, interface } => {
            ControlError::Unsupported { runtime, interface: interface.to_owned() }
        }
        CallsError::Call(call) => match call.answered() {
            Some(error) => answered(error),
            None => ControlError::Internal(call.to_string()),
        },
        CallsError::Attach(error) => answered(&error),
        CallsError::Broken(_) => ControlError::Unavailable(error.to_string()),
        CallsError::NoAdapter(_) => ControlError::Unavailable(error.to_string()),
        CallsError::Store(error) if error.is_passing() => ControlError::Unavailable(error.to_string()),
        CallsError::Store(error) => ControlError::Internal(error.to_string()),
    }
}

fn answered(error: &DeploymentError) -> ControlError {
    match error {
        DeploymentError::NotFound => ControlError::NotFound,
        DeploymentError::Invalid(_) | DeploymentError::Other { .. } | DeploymentError::Unsupported => {
            ControlError::Invalid(error.to_string())
        }
        DeploymentError::Busy(_)
        | DeploymentError::Unavailable(_)
        | DeploymentError::Denied(_)
        | DeploymentError::Exhausted(_)
        | DeploymentError::Superseded => ControlError::Unavailable(error.to_string()),
    }
}

/// Checks specifications against the loaded adapters' schemas.
pub struct Catalog {
    pub adapters: Arc<Adapters>,
}

impl AdapterCatalog for Catalog {
    fn validate_spec(&self, runtime_type: &str, spec: &Value) -> Result<(), SpecError> {
        let all = self.adapters.all();
        let unknown = || SpecError::UnknownRuntime { known: all.keys().map(ToString::to_string).collect() };
        let runtime_type: RuntimeType = runtime_type.parse().map_err(|_| unknown())?;
        let loaded = all.get(&runtime_type).ok_or_else(unknown)?;
        loaded.adapter.validate_spec(spec).map_err(|violations| {
            SpecError::Violations(
                violations.into_iter().map(|violation| (violation.path, violation.message)).collect(),
            )
        })
    }
}
