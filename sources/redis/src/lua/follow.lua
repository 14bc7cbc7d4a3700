#!lua
-- Takes in changes after `from` and raises `applied` to `to`; answers '' or, if it is elsewhere, where it is.
-- KEYS: 1 fence, 2 recent, 3 previous, 4.. the entry of each changed key,
--       then where other programs read the record of each, if they do
-- ARGV: 1 from, 2 to, 3 milliseconds to keep entries, 4 how many keys `recent` may hold,
--       then for each change: id, version, what follows epoch and version in the entry
local to = ARGV[2]
-- The fence: epoch (16), applied, floor, and what `recent` and `previous` have passed (20 characters each), log (32).
local fence = redis.call('GET', KEYS[1])
if not fence then return 'nowhere' end
local epoch, applied = string.sub(fence, 1, 16), string.sub(fence, 17, 36)
local floor, recent, previous = string.sub(fence, 37, 56), string.sub(fence, 57, 76), string.sub(fence, 77, 96)
if applied ~= ARGV[1] then return applied end

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
redis.call('SET', KEYS[1], epoch .. to .. floor .. recent .. previous .. string.sub(fence, 97))
return ''
