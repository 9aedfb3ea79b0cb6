-- Says what this server remembers. KEYS[1]: where its marker stands. ARGV[1]: the marker to write if there is none.
-- Returns {time in ms, the name of this server's memory, the marker, when it was written in ms}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[1] .. '@' .. string.format('%.0f', now), 'NX')
local name, since = string.match(redis.call('GET', KEYS[1]), '^(.*)@(%d+)$')
local memory = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
return {now, memory, name, tonumber(since)}
