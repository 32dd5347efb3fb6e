-- Two owners with a project each; the first has all agents but two. The ids of events are shared and have gaps; every
-- third event of the first project is a post, most of which have an ack.
INSERT INTO owners (email, username, is_operator, token_balance, plan) VALUES
    ('Ada@Example.org', 'Ada', true, 500, 'team'), ('bob@example.org', NULL, false, 0, 'free');
INSERT INTO owner_identities (owner_id, provider, provider_subject, email) VALUES
    (1, 'github', '4711', 'ada@example.org'), (1, 'google', 'g-1', 'ada@example.org');
INSERT INTO projects (owner_id, slug, name, liveness_window_sec) VALUES (1, 'apollo', 'Apollo', 10), (2, 'side', 'Side', 900);
INSERT INTO participants (owner_id, name, kind)
    SELECT 1, 'agent-' || n, CASE WHEN n = 1 THEN 'human' ELSE 'agent' END FROM generate_series(1, %(agents)s) AS n;
INSERT INTO participants (owner_id, name, kind) VALUES (2, 'solo', 'agent'), (2, 'Solo', 'agent');
INSERT INTO participations (participant_id, project_id, lane, is_admin)
    SELECT id, owner_id, CASE WHEN id %% 2 = 0 THEN 'web' ELSE 'api' END, name IN ('agent-1', 'solo') FROM participants ORDER BY id;
INSERT INTO sequences (project_id, name, current, prefix, pad) VALUES
    (1, 'adr', 0, 'ADR-', 4), (1, 'migration', 41, '', 0), (1, 'last', 9007199254740991, '', 0), (2, 'adr', 7, '', 0);
INSERT INTO events (id, project_id, ts, participation_id, actor_name, type, payload)
    SELECT n * 3, 1, '2026-01-01 00:00+00'::timestamptz + n * interval '1 second', 1 + n %% %(agents)s, 'ada/agent-' || 1 + n %% %(agents)s,
        CASE n %% 5 WHEN 0 THEN 'claim' WHEN 1 THEN 'post' WHEN 2 THEN 'ack' WHEN 3 THEN 'task_start' ELSE 'lease' END,
        CASE n %% 5 WHEN 0 THEN jsonb_build_object('sequence', 'adr', 'number', n / 5, 'formatted', 'ADR-' || n / 5, 'note', null)
            WHEN 1 THEN jsonb_build_object('post_id', n / 5 + 1, 'subject', 'Handoff ' || n)
            WHEN 2 THEN jsonb_build_object('post_id', n / 5 + 1)
            WHEN 3 THEN jsonb_build_object('title', 'Task') ELSE jsonb_build_object('surface', 'src/a.py', 'contended', true) END
    FROM generate_series(1, %(events)s) AS n;
UPDATE sequences SET current = %(events)s / 5 WHERE project_id = 1 AND name = 'adr';
INSERT INTO posts (id, project_id, event_id, from_participation_id, from_actor_name, to_lane, to_participation_id, subject,
                   body, ref, created_at)
    SELECT (e.payload ->> 'post_id')::bigint, 1, e.id, e.participation_id, e.actor_name,
        CASE WHEN e.id %% 2 = 0 THEN 'web' END, CASE WHEN e.id %% 2 = 1 THEN 1 + e.id %% %(agents)s END,
        e.payload ->> 'subject', 'Text of ' || e.id, 'PR-' || e.id, e.ts
    FROM events e WHERE e.type = 'post';
INSERT INTO post_acks (post_id, participation_id, actor_name, acked_at)
    SELECT (e.payload ->> 'post_id')::bigint, e.participation_id, e.actor_name, e.ts FROM events e
    WHERE e.type = 'ack' AND (e.payload ->> 'post_id')::bigint %% 10 <> 0;
INSERT INTO actor_cursors SELECT id, 1, 3 * (%(events)s - 5) FROM participations WHERE project_id = 1 AND id <= 3;
INSERT INTO presence (participation_id, project_id, lane, status, registered_at, last_seen)
    VALUES (2, 1, 'api', 'on it', now() - interval '1 hour', now());
INSERT INTO leases (project_id, surface, participation_id, actor_name, note, expires_at) VALUES
    (1, './src//api', 2, 'ada/agent-2', 'refactoring', now() + interval '1 hour'),
    (1, 'a.py, b.py', 2, 'ada/agent-2', NULL, now() + interval '1 hour'),
    (1, 'old.py', 2, 'ada/agent-2', NULL, now() - interval '1 hour');
INSERT INTO tasks (id, project_id, title, owner_participation_id, owner_name, status, created_by_id) VALUES
    (10, 1, 'Design', 1, 'ada/agent-1', 'done', 1), (20, 1, 'Build', 2, 'ada/agent-2', 'blocked', 1),
    (25, 2, 'Elsewhere', NULL, NULL, 'open', NULL), (30, 1, 'Test', NULL, NULL, 'open', 1);
INSERT INTO task_blockers (task_id, blocked_on_task_id, reason) VALUES (20, 30, 'needs the test'), (10, 20, NULL);
INSERT INTO join_codes (code, project_id, intended_name, max_uses, uses) VALUES ('join-me-please', 1, NULL, 3, 1),
    ('used-up', 1, NULL, 1, 1);
INSERT INTO invites (token_hash, project_id, intended_name, state) VALUES (repeat('ab', 32), 1, 'newcomer', 'pending'),
    (repeat('cd', 32), 1, 'gone', 'revoked');
-- Damage: a number twice, an event of a deleted participant, a late commit, a post without event, a task elsewhere.
INSERT INTO events (id, project_id, ts, participation_id, actor_name, type, payload) VALUES
    (3000001, 2, '2026-02-01', NULL, 'ghost', 'claim', '{"sequence": "adr", "number": 7, "formatted": "7"}'),
    (3000002, 2, '2026-02-02', NULL, 'ghost', 'claim', '{"sequence": "adr", "number": 7, "formatted": "7"}'),
    (3000003, 2, '2026-01-31', NULL, 'ghost', 'register', '{"lane": "api"}');
INSERT INTO posts (project_id, event_id, from_participation_id, from_actor_name, to_lane, body, created_at, id) VALUES
    (2, NULL, NULL, 'ghost', 'api', 'Not in the ledger', '2026-02-03', 3000001),
    (2, NULL, NULL, 'ghost', NULL, 'To one that is gone', '2026-02-04', 3000002);
INSERT INTO task_blockers (task_id, blocked_on_task_id) VALUES (25, 20);
