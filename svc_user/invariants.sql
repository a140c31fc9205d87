-- always: account_has_admin I33
-- At least one account is an admin.
SELECT 'no account is an admin' AS problem WHERE NOT EXISTS (SELECT FROM account WHERE 'admin' = ANY (roles));

-- always: one_live_token I32
-- A session has at most one refresh token that was not rotated.
SELECT session_id, count(*) AS live FROM refresh_token WHERE rotate_time IS NULL GROUP BY session_id HAVING count(*) > 1;

-- always: stored_successor_means_rotated I32
-- A refresh token with a stored successor was rotated.
SELECT session_id FROM refresh_token WHERE sealed_successor IS NOT NULL AND rotate_time IS NULL;

-- always: roles_have_a_history I33
-- The roles of an account are those of its last role change.
SELECT user_id, roles, roles_after FROM account
JOIN LATERAL (SELECT roles_after FROM role_change WHERE role_change.user_id = account.user_id
    ORDER BY change_id DESC LIMIT 1) AS last ON true
WHERE NOT (roles @> roles_after AND roles_after @> roles);

-- always: address_book_has_one_default
-- An address book that is not empty has exactly one default.
SELECT user_id, count(*) FILTER (WHERE is_default) AS defaults FROM address
GROUP BY user_id HAVING count(*) FILTER (WHERE is_default) <> 1;
