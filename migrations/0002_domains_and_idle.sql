-- Custom domains, machines of old, wake policies with three words, and stops of what is idle.

CREATE TABLE domains (
    domain text PRIMARY KEY
        CHECK (length(domain) BETWEEN 3 AND 253
            AND domain ~ '^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    project_id uuid NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    -- NULL: the project's primary deployment.
    deployment_id uuid,
    service text,
    created_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (deployment_id, project_id) REFERENCES deployments (id, project_id) ON DELETE CASCADE
);
CREATE INDEX domains_project ON domains (project_id, domain);
CREATE INDEX domains_deployment ON domains (deployment_id);
COMMENT ON TABLE domains IS 'Domains that projects own: exact, or `*.` and a parent for every name that is one label longer.';

-- A host of old may also be known to be gone: then it names neither.
ALTER TABLE hostnames DROP CONSTRAINT hostnames_check;
ALTER TABLE hostnames ADD CONSTRAINT hostnames_target CHECK (num_nonnulls(project_id, deployment_id) <= 1);
COMMENT ON TABLE hostnames IS 'Whole hosts beyond the derived ones and the domains: looked up exactly and first. Neither project nor deployment: gone.';

CREATE TABLE old_machines (
    id uuid PRIMARY KEY,
    -- NULL: gone.
    deployment_id uuid REFERENCES deployments (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX old_machines_deployment ON old_machines (deployment_id);
COMMENT ON TABLE old_machines IS 'What has taken the place of machines that hosts and links still name (mach_…).';

CREATE FUNCTION notify_domain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('hythe_hostnames', coalesce(NEW.domain, OLD.domain));
    RETURN NULL;
END
$$;
CREATE TRIGGER domains_notify AFTER INSERT OR UPDATE OR DELETE ON domains
    FOR EACH ROW EXECUTE FUNCTION notify_domain();
CREATE TRIGGER old_machines_notify AFTER INSERT OR UPDATE OR DELETE ON old_machines
    FOR EACH ROW EXECUTE FUNCTION notify_change('hythe_old_machines');

ALTER TABLE deployments DROP CONSTRAINT deployments_wake_policy_check;
UPDATE deployments SET wake_policy = CASE wake_policy WHEN 'on-request' THEN 'dynamic' ELSE 'none' END;
ALTER TABLE deployments ALTER COLUMN wake_policy SET DEFAULT 'none';
ALTER TABLE deployments ADD CONSTRAINT deployments_wake_policy_check
    CHECK (wake_policy IN ('dynamic', 'blocking', 'none'));

ALTER TABLE deployments
    -- NULL: never stopped for being idle.
    ADD COLUMN idle_timeout_seconds integer CHECK (idle_timeout_seconds BETWEEN 5 AND 31536000),
    -- Since when it runs, or was last kept from an idle stop: it is not idle before this and the time-out.
    ADD COLUMN running_at timestamptz,
    ADD COLUMN stop_reason text CHECK (stop_reason IN ('idle')),
    -- It is not stopped before this time: what was on its way to it is heard of first.
    ADD COLUMN stop_after timestamptz,
    ADD CONSTRAINT deployments_stop_check CHECK (wanted_state = 'stopped' OR (stop_reason IS NULL AND stop_after IS NULL)),
    ADD CONSTRAINT deployments_stop_after_check CHECK ((stop_reason IS NULL) = (stop_after IS NULL));
CREATE INDEX deployments_idle ON deployments (id) WHERE idle_timeout_seconds IS NOT NULL AND seen_state = 'running';

CREATE FUNCTION mark_running() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.running_at := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER deployments_running BEFORE UPDATE ON deployments
    FOR EACH ROW
    WHEN (NEW.seen_state = 'running'
        AND (OLD.seen_state <> 'running' OR OLD.seen_incarnation <> NEW.seen_incarnation))
    EXECUTE FUNCTION mark_running();

CREATE TABLE deployment_activity (
    deployment_id uuid NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    -- One run of a host.
    host_id uuid NOT NULL,
    -- Requests, streams and upgrades that are open there.
    open_count integer NOT NULL CHECK (open_count >= 0),
    last_active_at timestamptz NOT NULL,
    reported_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (deployment_id, host_id)
);
COMMENT ON TABLE deployment_activity IS 'What goes on at deployments that have an idle time-out, by host. What a dead host left counts for its time only.';

-- Whether nothing has gone on at a deployment for so long, at any host.
CREATE FUNCTION is_idle(deployment uuid, since timestamptz, idle_seconds integer) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT since + make_interval(secs => idle_seconds) <= now() AND NOT EXISTS (
        SELECT 1 FROM deployment_activity a
        WHERE a.deployment_id = deployment
            AND (a.last_active_at + make_interval(secs => idle_seconds) > now()
                OR (a.open_count > 0 AND a.reported_at + interval '30 seconds' > now())))
$$;
