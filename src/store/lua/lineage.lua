-- Reports the lineage of this store's data, so that a node can tell whether the store may have lost data.
-- KEYS[1]: the marker, and the time at which it was written. It is lost only if all data is lost.
-- KEYS[2]: a sorted set: the replication id of each server, and the time at which it was first seen.
-- ARGV[1]: the marker to write if there is none.
-- ARGV[2], ...: the replication ids of other servers that these keys may be moved to without a loss.
-- Returns {time in ms, replication id of this server, marker, time in ms since which no data can have been lost}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[1] .. '@' .. string.format('%.0f', now), 'NX')
local name, since = string.match(redis.call('GET', KEYS[1]), '^(.*)@(%d+)$')
local info = redis.pcall('INFO', 'replication')
if type(info) == 'table' then
  -- Redis does not name the command that it refuses to a script.
  return redis.error_reply('ERR INFO: ' .. info.err)
end
local memory = string.match(info, 'master_replid:(%w+)')
redis.call('ZADD', KEYS[2], 'NX', string.format('%.0f', now), memory)
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[2], 'NX', 0, ARGV[i])
end
-- Keeps the newest 100 servers, so that failovers do not grow the set without bound.
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -101)
local newest = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
return {now, memory, name, math.max(tonumber(since), tonumber(newest))}
