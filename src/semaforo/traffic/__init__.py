"""Load on a server, and what became of it: arrivals, requests, a generator in processes of its own, figures.

Rules this room keeps:

1. Open loop: when requests are sent is drawn before the run and owes nothing to the answers.
2. A latency counts from the moment a request was meant to be sent, so that a generator that is late makes the
   server look worse, never better (the coordinated omission of closed loops; Tene, "How NOT to measure latency").
   How late the generator itself was is kept for every request.
3. Every request ends: with a status, as broken, or as unanswered when the run is over.
"""
