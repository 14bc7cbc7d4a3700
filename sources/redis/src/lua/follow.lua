#!lua
-- Takes in changes after `from` and raises `applied` to `to`; answers '' or, if it is elsewhere, where it is.
-- KEYS: 1 fence, 2 recent, 3 previous, 4.. the entry of each changed key,
--       then where other programs read the record of each, if they do
-- ARGV: 1 from, 2 to, 3 milliseconds to keep entries, 4 how many keys `recent` may hold,
--       then for each change: id, version, what follows epoch and version in the entry
local to = ARGV[2]
local fence = redis.call('HMGET', KEYS[1], 'epoch', 'applied', 'floor', 'recent', 'previous')
local epoch, floor, recent, previous = fence[1], fence[3], fence[4], fence[5]
if not epoch or fence[2] ~= ARGV[1] then return fence[2] or 'nowhere' end

if redis.call('HGET', KEYS[2], '') ~= epoch or redis.call('HGET', KEYS[3], '') ~= epoch then
  -- A list of changed keys is gone: nothing that was read before now can be judged.
  redis.call('UNLINK', KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[2], '', epoch)
  redis.call('HSET', KEYS[3], '', epoch)
  floor, recent, previous = to, to, to
elseif redis.call('HLEN', KEYS[2]) > tonumber(ARGV[4]) then
  redis.call('UNLINK', KEYS[3])
  redis.call('RENAME', KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[2], '', epoch)
  floor, previous = previous, recent
end

local changes = (#ARGV - 4) / 3
for n = 4, 3 + changes do
  local at = 5 + (n - 4) * 3
  local id, version = ARGV[at], ARGV[at + 1]
  redis.call('HSET', KEYS[2], id, version)
  if recent < version then recent = version end
  local cached, replaced = redis.call('GETRANGE', KEYS[n], 0, 35), false
  -- An entry of another life is replaced like one of this life: the new one is right in either case.
  if #cached == 36 and string.sub(cached, 17) < version then
    redis.call('SET', KEYS[n], epoch .. version .. ARGV[at + 2], 'PX', ARGV[3])
    replaced = true
  end
  local shown = KEYS[n + changes]
  if shown and replaced and string.sub(ARGV[at + 2], 41, 41) == 'R' then
    redis.call('SET', shown, string.sub(ARGV[at + 2], 42), 'PX', ARGV[3])
  elseif shown and (replaced or #cached ~= 36) then
    -- The record is gone, or its entry was evicted and what is shown was not.
    redis.call('UNLINK', shown)
  end
end
redis.call('HSET', KEYS[1], 'applied', to, 'floor', floor, 'recent', recent, 'previous', previous)
return ''
