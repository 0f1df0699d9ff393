"""One module for each kind of broker, each with the same names:

NAME                            what it is called
ports(asked, free_port)         the ports of a new one
lay(folder, state)              the files it needs before its first start
processes(folder, state)        what runs
answers(folder, state, node)    whether it answers now; OSError and ValueError are "not yet"
describe(state)                 what `start` prints
prepare(state, topic)           makes a topic ready
read(state, topic)              yields (data, metadata) of what the topic holds, by the broker's official client
write(state, topic, messages, group)
                                writes {data, metadata, key?}, laid out as Dapr's component lays them out
delete_topic(state, topic)      takes a topic away with all that is in it; absent where the broker cannot, as all that follow
delete_group(state, topic, group)
                                takes away what the broker keeps of a group
fill(folder, state, topic)      has the broker store nothing more, of this topic at least
relieve(folder, state, topic)   has it store again
rotate(folder, state, new)      has it take the user and password of the new state in place of those of the old
tls(state)                      what the settings of TLS are called; `url` is the address that speaks it, with {host}
VARIANTS                        ways to be judged by the conformance kit, the usual one first
conform_options(variant)        what `start` is given for it
profile(state, variant)         the Component's type and metadata, and what is special in the Conformance document; None leaves a key out
"""
