#!lua
-- Takes in changes of one part of a follower and moves its mark, in one step.
-- The ledger says of each record its version in 20 digits, with a 'D' behind it if it was deleted. Versions are compared
-- as text: a Lua number cannot hold them.
-- KEYS: 1 ledger, 2 index, 3 deletions, 4.. the sorted sets of fields, then the key of each changed record, none twice,
--       with the keys of its fields that stand beside it
-- ARGV: 1 'h' for hashes or 's' for strings, 2 '1' if an equal version is written again, 3 '1' if the mark must be as
--       expected, 4 the expected mark, 5 the next mark or '', 6 deletions before this version are forgotten,
--       7 how many fields stand beside each record, 8 how many sorted sets there are,
--       9.. the id of each record, then if there are sorted sets what they call each of them,
--       then for each record what the ledger will say of it, and unless that is a deletion
--       the string, or how many fields and values follow and these, each field beside it behind '=', and each score;
--       '' for a field or a score that is not there. All are values, never differences, so that a step may be repeated.
-- Answers 0 and the mark if that is another one; else 1 and which of the changes are stale.
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

-- What is used for every record is local, and pairs are counted by hand: looking up a name, calling a function or
-- formatting a number for each costs time in which the server does nothing else.
local keys, argv, sub = KEYS, ARGV, string.sub
local width, sets = 1 + tonumber(ARGV[7]), tonumber(ARGV[8])
local count = (#KEYS - 3 - sets) / width
local stale, versions, removed, records, listed, unlisted, deletions = {}, {}, {}, {}, {}, {}, {}
local written, indexed, stored = 0, 0, 0
local held = count > 0 and redis.call('HMGET', KEYS[1], unpack(ARGV, 9, 8 + count))
local hashes, again = ARGV[1] == 'h', ARGV[2] == '1'
local ranked, unranked = {}, {}
for n = 1, sets do ranked[n], unranked[n] = {}, {} end
local place, at, beside = 4 + sets, 9 + count, width - 1 + sets
if sets > 0 then at = at + count end
for n = 1, count do
  local key, id, entry = keys[place], argv[n + 8], argv[at]
  local deleted = #entry > 20
  local version = deleted and sub(entry, 1, 20) or entry
  local known = held[n] and sub(held[n], 1, 20)
  local values = deleted and 0 or hashes and 1 + tonumber(argv[at + 1]) or 1
  if known and (known > version or known == version and not again) then
    stale[#stale + 1] = n
  else
    versions[written + 1], versions[written + 2] = id, entry
    written = written + 2
    if deleted then
      deletions[#deletions + 1] = '0'
      deletions[#deletions + 1] = version .. id
      unlisted[#unlisted + 1] = id
      removed[#removed + 1] = key
    else
      listed[indexed + 1], listed[indexed + 2] = '0', id
      indexed = indexed + 2
      if hashes then
        redis.call('UNLINK', key)
        redis.call('HSET', key, unpack(argv, at + 2, at + values))
      else
        records[stored + 1], records[stored + 2] = key, argv[at + 1]
        stored = stored + 2
      end
    end
    for n = 1, width - 1 do
      local text = deleted and '' or argv[at + values + n]
      if text == '' then
        removed[#removed + 1] = keys[place + n]
      else
        records[stored + 1], records[stored + 2] = keys[place + n], sub(text, 2)
        stored = stored + 2
      end
    end
    for s = 1, sets do
      local score = deleted and '' or argv[at + values + width - 1 + s]
      local member, scores, gone = argv[n + 8 + count], ranked[s], unranked[s]
      if score == '' then
        gone[#gone + 1] = member
      else
        scores[#scores + 1] = score
        scores[#scores + 1] = member
      end
    end
  end
  at = at + 1 + values
  if not deleted then at = at + beside end
  place = place + width
end
if ARGV[5] ~= '' then versions[written + 1], versions[written + 2] = '', ARGV[5] end

if #removed > 0 then redis.call('UNLINK', unpack(removed)) end
if #records > 0 then redis.call('MSET', unpack(records)) end
if #unlisted > 0 then redis.call('ZREM', KEYS[2], unpack(unlisted)) end
if #listed > 0 then redis.call('ZADD', KEYS[2], unpack(listed)) end
if #deletions > 0 then redis.call('ZADD', KEYS[3], unpack(deletions)) end
-- What somebody put in the place of a sorted set goes; what is then missing from it is found and mended.
local function rank(command, key, arguments)
  if #arguments > 0 and type(redis.pcall(command, key, unpack(arguments))) == 'table' then
    redis.call('UNLINK', key)
    redis.call(command, key, unpack(arguments))
  end
end
for n = 1, sets do
  rank('ZREM', KEYS[3 + n], unranked[n])
  rank('ZADD', KEYS[3 + n], ranked[n])
end
if #versions > 0 then redis.call('HSET', KEYS[1], unpack(versions)) end
return {1, stale}
