-- Changes a document. KEYS[1]: its key. ARGV: keep in ms; the write that the core must stem from, or '' to leave the
-- core alone; the name of the server's memory that it must stem from; the new write; the new core; then field and value
-- in turn, an empty value removing its field. Returns {0} if there is no such document, {1} if another core was written
-- since or another server took the place of that one, else {2, version, time in ms}.
local key = KEYS[1]
if redis.call('EXISTS', key) == 0 then
  return {0}
end
if ARGV[2] ~= '' then
  local memory = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
  if memory ~= ARGV[3] or redis.call('HGET', key, 'write') ~= ARGV[2] then
    return {1}
  end
  redis.call('HSET', key, 'write', ARGV[4], 'core', ARGV[5])
end
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', key, ARGV[i])
  else
    redis.call('HSET', key, ARGV[i], ARGV[i + 1])
  end
end
local version = redis.call('HINCRBY', key, 'version', 1)
if redis.call('PTTL', key) < tonumber(ARGV[1]) then
  redis.call('PEXPIRE', key, ARGV[1])
end
local time = redis.call('TIME')
return {2, version, time[1] * 1000 + math.floor(time[2] / 1000)}
