"""How to plug the sync loss into a generator. Imports syncdisc_plugin, never the other way."""
