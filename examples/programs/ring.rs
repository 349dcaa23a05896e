//! A token goes round: each rank adds its number and passes it on. Rank 0 returns what comes back to it.

use lswitch::{Context, ProgramError};

pub fn run(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let (rank, size) = (context.rank(), context.size());
    let (next, before) = ((rank + 1) % size, (rank + size - 1) % size);
    let comm = context.comm();
    if rank == 0 {
        comm.send(next, 0, b"0".as_slice().into())?;
    }
    let token = comm.receive(Some(before), 0)?.payload;
    let token = String::from_utf8(token.to_vec()).map_err(ProgramError::new)?;
    if rank > 0 {
        comm.send(next, 0, format!("{token} {rank}").into())?;
        return Ok(b"passed on".to_vec());
    }
    Ok(token.into_bytes())
}
