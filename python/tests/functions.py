"""Handlers that the tests run as Lambda functions."""

import softwareforwarder

import lswitch


@lswitch.handler
def ring(event, job):
    """The Rust side's example, in Python: a token goes round."""
    before, after = (job.rank - 1) % job.size, (job.rank + 1) % job.size
    if job.rank == 0:
        job.comm.send(after, b"0")
    token = job.comm.receive(before).data
    if job.rank:
        job.comm.send(after, token + b" %d" % job.rank)
        return b"passed on"
    return token


@lswitch.handler
def echo(event, job):
    job.log("the event is", event)
    job.progress(1, 0.5)
    total = job.allreduce(job.rank)
    return {"event": event, "rank": job.rank, "uid": job.uid, "peers": list(job.peers), "total": total}


@lswitch.handler
def broken(event, job):
    if job.rank == 1:
        raise ValueError("this rank is broken on purpose")
    job.receive()


@lswitch.handler
def not_json(event, job):
    return {1, 2}


@lswitch.handler
def long(event, job):
    return b"z" * (event["length"] + job.rank)


@lswitch.handler
def patient(event, job):
    """Waits for what never comes."""
    if job.rank == 0:
        job.receive(1, tag=3)
    else:
        job.barrier()


def forwarded(event, context):
    """In the manner of SoftwareForwarder's published example: the decorator inside, errors as an answer."""
    try:

        @softwareforwarder.SoftwareForwarder(url=event["server_url"])
        def main(event, context):
            sen, rec, uid, peers = event["sen"], event["rec"], event["uid"], event["peers"]
            others = [peer for peer in peers if peer != uid]
            for turn in range(event["rounds"]):
                for peer in others:
                    sen(peer, (turn, {uid: turn * uid}))
            inbox = [rec() for _ in others for _ in range(event["rounds"])]
            return uid, sorted((turn, *update.items()) for turn, update in inbox)

        uid, result = main(event, context)
        return {"uid": uid, "res": [list(map(list, part[1:])) for part in result], "statusCode": 200}
    except Exception as error:
        return {"Exception": str(error), "statusCode": 400}


def plain(event, context):
    """Not lswitch's at all."""
    if event and event.get("fail"):
        raise ValueError(event["fail"])
    return {"event": event, "left_ms": context.get_remaining_time_in_millis()}
