-- Reads a document.
-- KEYS[1]: the document.
-- Returns {time in ms, replication id of this server, pairs of field and value}. The pairs are empty without a
-- document.
local time = redis.call('TIME')
local info = redis.pcall('INFO', 'replication')
if type(info) == 'table' then
  -- Redis does not name the command that it refuses to a script.
  return redis.error_reply('ERR INFO: ' .. info.err)
end
local memory = string.match(info, 'master_replid:(%w+)')
return {time[1] * 1000 + math.floor(time[2] / 1000), memory, redis.call('HGETALL', KEYS[1])}
