-- Changes a document, if no other change was written since the one that it is based on.
-- KEYS[1]: the document.
-- ARGV[1]: how long to keep the document, in ms.
-- ARGV[2]: the id of the write that the change is based on.
-- ARGV[3]: the replication id of the server that it is based on.
-- ARGV[4], ARGV[5]: the id of this write, and the new core.
-- ARGV[6], ...: pairs of field and value; an empty value removes the field.
-- Returns {0} if there is no such document, {1} if another write came first or another server answers, and
-- {2, version, time in ms} if the change is written.
local key = KEYS[1]
if redis.call('EXISTS', key) == 0 then
  return {0}
end
local info = redis.pcall('INFO', 'replication')
if type(info) == 'table' then
  return redis.error_reply('ERR INFO: ' .. info.err)
end
local memory = string.match(info, 'master_replid:(%w+)')
if memory ~= ARGV[3] or redis.call('HGET', key, 'write') ~= ARGV[2] then
  return {1}
end
redis.call('HSET', key, 'write', ARGV[4], 'core', ARGV[5])
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
