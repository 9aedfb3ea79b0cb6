-- Says what this store remembers. KEYS[1]: where its marker stands. KEYS[2]: when each server was first heard of. ARGV: the
-- marker to write if there is none; the names of the memories of the servers, of this one alone if none are given.
-- Returns {time in ms, the name of this server's memory, the marker, since when nothing can have been forgotten in ms}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[1] .. '@' .. string.format('%.0f', now), 'NX')
local name, since = string.match(redis.call('GET', KEYS[1]), '^(.*)@(%d+)$')
local memory = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
for i = 2, math.max(2, #ARGV) do
  redis.call('ZADD', KEYS[2], 'NX', string.format('%.0f', now), ARGV[i] or memory)
end
-- As many failovers as anybody will want to look back on.
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -101)
local newest = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
return {now, memory, name, math.max(tonumber(since), tonumber(newest))}
