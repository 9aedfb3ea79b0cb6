-- Reads a document.
-- KEYS[1]: the document.
-- Returns {time in ms, replication id of this server, pairs of field and value}. The pairs are empty without a
-- document.
local time = redis.call('TIME')
local memory = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
return {time[1] * 1000 + math.floor(time[2] / 1000), memory, redis.call('HGETALL', KEYS[1])}
