-- The store of Hythe: what is wanted, what was seen, and who holds what.
-- Ids are UUIDs (TypeIDs at the edges). Enumerations are text with a CHECK that repeats `host/model`.

-- Tells every host what changed: a hint only, a poll converges. The payload is the row's id.
CREATE FUNCTION notify_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(TG_ARGV[0], coalesce(NEW.id, OLD.id)::text);
    RETURN NULL;
END
$$;

CREATE TABLE projects (
    id uuid PRIMARY KEY,
    slug text NOT NULL UNIQUE
        CHECK (slug ~ '^[a-z]([a-z0-9-]*[a-z0-9])?$' AND length(slug) <= 50 AND slug !~ '--'
            AND slug !~ '^dep-' AND slug NOT IN ('xn', 'machines', 'prj', 'org')),
    primary_deployment_id uuid,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN projects.primary_deployment_id IS 'What <slug>.<base> leads to.';

CREATE TABLE adapters (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    component_sha256 text NOT NULL CHECK (component_sha256 ~ '^[0-9a-f]{64}$'),
    version text NOT NULL,
    summary text NOT NULL,
    exports text[] NOT NULL,
    spec_schema jsonb NOT NULL,
    is_default boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX adapters_default ON adapters (is_default) WHERE is_default;
COMMENT ON TABLE adapters IS 'What the hosts'' configuration declares, mirrored for all to see. The configuration is authoritative.';

CREATE TABLE grants (
    adapter_id uuid NOT NULL REFERENCES adapters (id) ON DELETE CASCADE,
    name text NOT NULL,
    target text NOT NULL,
    methods text[],
    paths text[],
    PRIMARY KEY (adapter_id, name)
);
COMMENT ON TABLE grants IS 'What an adapter may reach, mirrored from the configuration. Credentials are never here.';

CREATE TABLE sources (
    sha256 text PRIMARY KEY CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sources IS 'Uploaded archives (tar.zst). The bytes lie in the hosts'' data directory.';

CREATE TABLE deployments (
    id uuid PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES projects (id) ON DELETE RESTRICT,
    runtime_type text NOT NULL,
    spec jsonb NOT NULL,
    source_sha256 text REFERENCES sources (sha256),
    wake_policy text NOT NULL DEFAULT 'never' CHECK (wake_policy IN ('never', 'on-request')),
    -- A new deployment becomes its project's primary when it is healthy.
    promote_when_healthy boolean NOT NULL DEFAULT false,
    -- When replaced by another primary: destroyed at this time.
    expires_at timestamptz,

    wanted_state text NOT NULL DEFAULT 'running' CHECK (wanted_state IN ('running', 'stopped', 'destroyed')),
    wanted_incarnation bigint NOT NULL DEFAULT 1 CHECK (wanted_incarnation >= 1),
    generation bigint NOT NULL DEFAULT 1 CHECK (generation >= 1),
    force_destroy boolean NOT NULL DEFAULT false,

    seen_state text NOT NULL DEFAULT 'created'
        CHECK (seen_state IN ('created', 'starting', 'running', 'stopping', 'stopped', 'failed', 'destroyed')),
    seen_incarnation bigint NOT NULL DEFAULT 0 CHECK (seen_incarnation >= 0),
    seen_generation bigint NOT NULL DEFAULT 0 CHECK (seen_generation >= 0),
    seen_at timestamptz,
    seen_detail text,
    health text NOT NULL DEFAULT 'unknown' CHECK (health IN ('unknown', 'healthy', 'unhealthy')),
    health_detail text,
    health_at timestamptz,
    locator text,

    -- The operation under way, where there is one: it survives its host.
    operation bigint NOT NULL DEFAULT 0 CHECK (operation >= 0),
    operation_kind text CHECK (operation_kind IN ('start', 'stop', 'restart', 'destroy')),
    operation_generation bigint,
    operation_incarnation bigint,
    operation_started_at timestamptz,
    operation_tries integer NOT NULL DEFAULT 0,
    -- Starts that failed in a row.
    failures integer NOT NULL DEFAULT 0,
    last_error text,
    next_action_at timestamptz NOT NULL DEFAULT now(),

    lease_holder uuid,
    lease_epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,

    created_at timestamptz NOT NULL DEFAULT now(),
    destroyed_at timestamptz,
    UNIQUE (id, project_id),
    CHECK (seen_incarnation <= wanted_incarnation),
    CHECK (seen_generation <= generation),
    CHECK ((operation_kind IS NULL) = (operation_generation IS NULL)),
    CHECK ((operation_kind IS NULL) = (operation_incarnation IS NULL)),
    CHECK ((operation_kind IS NULL) = (operation_started_at IS NULL)),
    CHECK ((lease_holder IS NULL) = (lease_until IS NULL)),
    CHECK ((seen_state = 'destroyed') = (destroyed_at IS NOT NULL)),
    CHECK (health = 'unknown' OR seen_state = 'running')
);
ALTER TABLE projects ADD FOREIGN KEY (primary_deployment_id, id) REFERENCES deployments (id, project_id)
    DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX deployments_project ON deployments (project_id, id);
CREATE INDEX deployments_due ON deployments (next_action_at) WHERE seen_state <> 'destroyed';
CREATE INDEX deployments_source ON deployments (source_sha256);
COMMENT ON COLUMN deployments.operation IS 'Counts operations: the fence that machines'' daemons keep.';
COMMENT ON COLUMN deployments.lease_epoch IS 'Counts leases: a write by an earlier holder finds no row.';

CREATE TABLE services (
    deployment_id uuid NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    position smallint NOT NULL,
    name text NOT NULL
        CHECK (name ~ '^[a-z]([a-z0-9-]*[a-z0-9])?$' AND length(name) <= 15 AND name !~ '--' AND name !~ '^dep-'),
    port integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    scheme text NOT NULL DEFAULT 'http' CHECK (scheme IN ('http', 'https', 'h2c')),
    PRIMARY KEY (deployment_id, name),
    UNIQUE (deployment_id, position),
    UNIQUE (deployment_id, port)
);

CREATE TABLE hostnames (
    host text PRIMARY KEY CHECK (host = lower(host) AND length(host) <= 253),
    project_id uuid REFERENCES projects (id) ON DELETE CASCADE,
    deployment_id uuid REFERENCES deployments (id) ON DELETE CASCADE,
    service text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(project_id, deployment_id) = 1)
);
COMMENT ON TABLE hostnames IS 'Hosts beyond the derived ones (<slug>, dep-…): looked up exactly and first.';

CREATE TABLE agents (
    id uuid PRIMARY KEY,
    owner_id uuid,
    name text NOT NULL,
    machine_id uuid,
    is_trashed boolean NOT NULL DEFAULT false,
    trashed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (is_trashed = (trashed_at IS NOT NULL))
);
COMMENT ON TABLE agents IS 'An AI agent of the user''s domain that may hold a machine; not the daemon.';

CREATE TABLE machines (
    id uuid PRIMARY KEY,
    type text NOT NULL CHECK (type ~ '^[a-z][a-z0-9-]*$'),
    provider_machine_id text,
    name text NOT NULL,
    status text NOT NULL CHECK (status IN ('launching', 'ready', 'in_use', 'offline', 'retired')),
    owner_id uuid,
    -- An IP address or a name, as the host dials it.
    address text,
    ipv4 inet CHECK (family(ipv4) = 4),
    port integer NOT NULL DEFAULT 8911 CHECK (port BETWEEN 1 AND 65535),
    shared_key_ciphertext bytea,
    shared_key_key_id text,
    certificate_sha256 text CHECK (certificate_sha256 ~ '^[0-9a-f]{64}$'),
    os text,
    arch text,
    cpu_count integer CHECK (cpu_count > 0),
    memory_bytes bigint CHECK (memory_bytes > 0),
    labels jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object'),
    current_agent_id uuid UNIQUE REFERENCES agents (id) ON DELETE SET NULL,
    current_deployment_id uuid UNIQUE REFERENCES deployments (id) ON DELETE SET NULL,
    claimed_at timestamptz,
    last_seen_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    -- Held by at most one.
    CHECK (num_nonnulls(current_agent_id, current_deployment_id) <= 1),
    -- A held machine is in use, or offline for a while; `in_use` without a holder passes through the
    -- set-null of a deleted holder and is settled by the pool.
    CHECK (num_nonnulls(current_agent_id, current_deployment_id) = 0 OR status IN ('in_use', 'offline')),
    CHECK ((status = 'retired') = (retired_at IS NOT NULL)),
    CHECK ((shared_key_ciphertext IS NULL) = (shared_key_key_id IS NULL)),
    -- What can be claimed can be reached.
    CHECK (status NOT IN ('ready', 'in_use')
        OR (address IS NOT NULL AND shared_key_ciphertext IS NOT NULL AND certificate_sha256 IS NOT NULL)),
    UNIQUE (type, provider_machine_id),
    UNIQUE (id, current_agent_id)
);
-- Who holds a machine is stored once, on the machine; this reference can't disagree with it.
ALTER TABLE agents ADD FOREIGN KEY (machine_id, id) REFERENCES machines (id, current_agent_id)
    ON DELETE SET NULL (machine_id) DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX machines_type ON machines (type);
CREATE INDEX machines_status ON machines (status, claimed_at, created_at);
CREATE INDEX machines_owner ON machines (owner_id);

CREATE TABLE machine_registrations (
    token_sha256 bytea PRIMARY KEY,
    name text,
    type text NOT NULL DEFAULT 'custom',
    labels jsonb NOT NULL DEFAULT '{}',
    owner_id uuid,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'used', 'expired')),
    machine_id uuid REFERENCES machines (id),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((status = 'used') = (machine_id IS NOT NULL))
);
COMMENT ON TABLE machine_registrations IS 'One-time tokens (amt_ + 48 hex), kept only as SHA-256.';

CREATE TABLE machine_health_checks (
    machine_id uuid PRIMARY KEY REFERENCES machines (id) ON DELETE CASCADE,
    consecutive_failures integer NOT NULL DEFAULT 0,
    last_check_at timestamptz,
    last_success_at timestamptz,
    last_failure_at timestamptz
);

CREATE TABLE machine_snapshots (
    id uuid PRIMARY KEY,
    machine_id uuid NOT NULL REFERENCES machines (id) ON DELETE RESTRICT,
    status text NOT NULL CHECK (status IN ('queued', 'in_progress', 'completed', 'failed', 'cancelled')),
    storage_key text,
    size_bytes bigint,
    error text,
    retry_count integer NOT NULL DEFAULT 0,
    priority integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    expires_at timestamptz,
    delete_after timestamptz
);
CREATE INDEX machine_snapshots_machine ON machine_snapshots (machine_id, created_at);

CREATE SEQUENCE events_seq;
CREATE TABLE events (
    -- Given in order of commit (see `event_number`): a reader with a cursor misses none.
    seq bigint PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    name text NOT NULL,
    project_id uuid,
    deployment_id uuid,
    machine_id uuid,
    incarnation bigint,
    data jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE events IS 'What happened, in order. No foreign keys: events outlive what they tell of.';
CREATE INDEX events_deployment ON events (deployment_id, seq);
CREATE INDEX events_project ON events (project_id, seq);
CREATE INDEX events_machine ON events (machine_id, seq);

CREATE TABLE api_tokens (
    sha256 bytea PRIMARY KEY,
    name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
COMMENT ON TABLE api_tokens IS 'Tokens of the control API, kept only as SHA-256.';

CREATE TABLE idempotency_keys (
    key text NOT NULL,
    scope text NOT NULL,
    request_sha256 bytea NOT NULL,
    status integer,
    response jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

CREATE TRIGGER projects_notify AFTER INSERT OR UPDATE OR DELETE ON projects
    FOR EACH ROW EXECUTE FUNCTION notify_change('hythe_projects');
CREATE TRIGGER deployments_notify AFTER INSERT OR DELETE ON deployments
    FOR EACH ROW EXECUTE FUNCTION notify_change('hythe_deployments');
-- Not for a lease or a schedule: only for what others act on.
CREATE TRIGGER deployments_notify_update AFTER UPDATE ON deployments
    FOR EACH ROW
    WHEN ((OLD.wanted_state, OLD.wanted_incarnation, OLD.generation, OLD.seen_state, OLD.seen_incarnation, OLD.health)
        IS DISTINCT FROM
        (NEW.wanted_state, NEW.wanted_incarnation, NEW.generation, NEW.seen_state, NEW.seen_incarnation, NEW.health))
    EXECUTE FUNCTION notify_change('hythe_deployments');
CREATE FUNCTION notify_hostname() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('hythe_hostnames', coalesce(NEW.host, OLD.host));
    RETURN NULL;
END
$$;
CREATE TRIGGER hostnames_notify AFTER INSERT OR UPDATE OR DELETE ON hostnames
    FOR EACH ROW EXECUTE FUNCTION notify_hostname();
CREATE TRIGGER machines_notify AFTER INSERT OR UPDATE OF status, address, port, certificate_sha256 ON machines
    FOR EACH ROW EXECUTE FUNCTION notify_change('hythe_machines');

-- One writer of events at a time: a number is drawn under a lock that lasts until the commit.
CREATE FUNCTION event_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(5220418101);
    NEW.seq := nextval('events_seq');
    RETURN NEW;
END
$$;
CREATE TRIGGER events_number BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION event_number();

CREATE FUNCTION notify_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('hythe_events', NEW.seq::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER events_notify AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION notify_event();
