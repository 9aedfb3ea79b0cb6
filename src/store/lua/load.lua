-- Reads a document. KEYS[1]: its key. Returns {time in ms, the name of this server's memory, fields and values in turn}.
local time = redis.call('TIME')
local memory = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
return {time[1] * 1000 + math.floor(time[2] / 1000), memory, redis.call('HGETALL', KEYS[1])}
