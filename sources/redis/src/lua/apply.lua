#!lua
-- Takes in changes of one part of a follower and moves its mark, in one step.
-- KEYS: 1 ledger, 2 index, 3 deletions, 4.. the key of each changed record
-- ARGV: 1 'h' for hashes or 's' for strings, 2 '1' if an equal version is written again, 3 '1' if the mark must be as
--       expected, 4 the expected mark, 5 the next mark or '', 6 deletions before this version are forgotten,
--       then for each change: id, version, 'P' or 'D', how many values follow, the values
-- Versions are 20 digits and compared as text: a Lua number cannot hold them.
local mark = redis.call('HGET', KEYS[1], '') or ''
if ARGV[3] == '1' and mark ~= ARGV[4] then return {0, mark} end

if ARGV[6] ~= '' then
  for _, member in ipairs(redis.call('ZRANGEBYLEX', KEYS[3], '-', '(' .. ARGV[6], 'LIMIT', 0, 1000)) do
    local version, id = string.sub(member, 1, 20), string.sub(member, 21)
    if redis.call('HGET', KEYS[1], id) == version .. 'D' then redis.call('HDEL', KEYS[1], id) end
    redis.call('ZREM', KEYS[3], member)
  end
end

local outcomes = {}
local at = 7
for n = 4, #KEYS do
  local id, version, values = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 3])
  local held = string.sub(redis.call('HGET', KEYS[1], id) or '', 1, 20)
  if held > version or (held == version and ARGV[2] ~= '1') then
    outcomes[#outcomes + 1] = 0
  else
    if ARGV[at + 2] == 'D' then
      redis.call('UNLINK', KEYS[n])
      redis.call('HSET', KEYS[1], id, version .. 'D')
      redis.call('ZREM', KEYS[2], id)
      redis.call('ZADD', KEYS[3], 0, version .. id)
    else
      if ARGV[1] == 'h' then
        redis.call('UNLINK', KEYS[n])
        redis.call('HSET', KEYS[n], unpack(ARGV, at + 4, at + 3 + values))
      else
        redis.call('SET', KEYS[n], ARGV[at + 4])
      end
      redis.call('HSET', KEYS[1], id, version)
      redis.call('ZADD', KEYS[2], 0, id)
    end
    outcomes[#outcomes + 1] = 1
  end
  at = at + 4 + values
end

if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], '', ARGV[5]) end
return {1, outcomes}
