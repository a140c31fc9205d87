-- always: account_has_admin I33
-- Somebody can give roles.
SELECT 'nobody is an admin' AS problem WHERE NOT EXISTS (SELECT FROM account WHERE 'admin' = ANY (roles));

-- always: one_live_token I32
-- A session has one token at most that was not exchanged yet.
SELECT session_id, count(*) AS live FROM refresh_token WHERE rotate_time IS NULL GROUP BY session_id HAVING count(*) > 1;

-- always: reuse_ends_the_session I32
-- A token whose secret successor is kept was exchanged.
SELECT session_id FROM refresh_token WHERE sealed_successor IS NOT NULL AND rotate_time IS NULL;

-- always: roles_have_a_history I33
-- What somebody may do is what the last change of their roles says.
SELECT user_id, roles, roles_after FROM account
JOIN LATERAL (SELECT roles_after FROM role_change WHERE role_change.user_id = account.user_id
    ORDER BY change_id DESC LIMIT 1) AS last ON true
WHERE NOT (roles @> roles_after AND roles_after @> roles);
