#!lua
-- Takes in changes of one part of a follower and moves its mark, in one step.
-- The ledger says of each record its version in 20 digits, with a 'D' behind it if it was deleted. Versions are compared
-- as text: a Lua number cannot hold them.
-- KEYS: 1 ledger, 2 index, 3 deletions, 4.. the key of each changed record, none twice
-- ARGV: 1 'h' for hashes or 's' for strings, 2 '1' if an equal version is written again, 3 '1' if the mark must be as
--       expected, 4 the expected mark, 5 the next mark or '', 6 deletions before this version are forgotten,
--       7.. the id of each record, then for each record what the ledger will say of it, and unless that is a deletion
--       the string, or how many fields and values follow and these
-- Few commands with many arguments each: a call of a command costs more than what it does for one record.
local mark = redis.call('HGET', KEYS[1], '') or ''
if ARGV[3] == '1' and mark ~= ARGV[4] then return {0, mark} end

if ARGV[6] ~= '' then
  for _, member in ipairs(redis.call('ZRANGEBYLEX', KEYS[3], '-', '(' .. ARGV[6], 'LIMIT', 0, 1000)) do
    local version, id = string.sub(member, 1, 20), string.sub(member, 21)
    if redis.call('HGET', KEYS[1], id) == version .. 'D' then redis.call('HDEL', KEYS[1], id) end
    redis.call('ZREM', KEYS[3], member)
  end
end

local count = #KEYS - 3
local outcomes, versions, removed, records, listed, unlisted, deletions = {}, {}, {}, {}, {}, {}, {}
local function add(list, first, second)
  list[#list + 1] = first
  list[#list + 1] = second
end
local held = count > 0 and redis.call('HMGET', KEYS[1], unpack(ARGV, 7, 6 + count))
local hashes, again = ARGV[1] == 'h', ARGV[2] == '1'
local at = 7 + count
for n = 1, count do
  local key, id, entry = KEYS[n + 3], ARGV[n + 6], ARGV[at]
  local deleted = #entry > 20
  local version = deleted and string.sub(entry, 1, 20) or entry
  local known = held[n] and string.sub(held[n], 1, 20) or ''
  local values = deleted and 0 or hashes and 1 + tonumber(ARGV[at + 1]) or 1
  if known > version or (known == version and not again) then
    outcomes[n] = 0
  else
    outcomes[n] = 1
    add(versions, id, entry)
    if deleted then
      add(deletions, 0, version .. id)
      add(unlisted, id)
      add(removed, key)
    else
      add(listed, 0, id)
      if hashes then
        redis.call('UNLINK', key)
        redis.call('HSET', key, unpack(ARGV, at + 2, at + values))
      else
        add(records, key, ARGV[at + 1])
      end
    end
  end
  at = at + 1 + values
end
if ARGV[5] ~= '' then add(versions, '', ARGV[5]) end

if #removed > 0 then redis.call('UNLINK', unpack(removed)) end
if #records > 0 then redis.call('MSET', unpack(records)) end
if #unlisted > 0 then redis.call('ZREM', KEYS[2], unpack(unlisted)) end
if #listed > 0 then redis.call('ZADD', KEYS[2], unpack(listed)) end
if #deletions > 0 then redis.call('ZADD', KEYS[3], unpack(deletions)) end
if #versions > 0 then redis.call('HSET', KEYS[1], unpack(versions)) end
return {1, outcomes}
